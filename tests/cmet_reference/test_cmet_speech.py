"""What C-MET reads: the blendshape codec, prosody, emotions of pools, vectors of emotion2vec."""

import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cmet_reference.cmet import blendshape, speech
from cmet_reference.cmet.blendshape import BlendshapeCodec
from cmet_reference.cmet.codec import Face, held, smoothed_lips
from talking_face.emotions import EMOTIONS
from talking_face.reasons import ClipError, Reason, UserError
from tests.cmet_reference.cmet_parts import clips_of

# -- codec -------------------------------------------------------------------------------------------------------------


def test_the_blendshape_codec_explains_the_training_split_and_is_exact_at_rest() -> None:
    clips = clips_of(("M1", "W1"))
    model = blendshape.fit_model(clips, 7)  # seven emotions and neutral: seven components explain everything
    assert blendshape.explained(model, clips)["lips"] > 0.9
    codec, clip = BlendshapeCodec(model), clips[0]
    face = Face(None, clip.landmarks, clip.blendshapes)
    still = np.zeros((3, len(blendshape.POINTS), 3), np.float32)
    own = codec.encode(face).mean(axis=0, keepdims=True)
    again = codec.points(face, still, face, own)
    assert again.shape == (3, 478, 3)
    lower = model.upper() == 0
    assert np.abs(again - clip.landmarks.mean(axis=0))[:, lower].mean() < 0.5  # px: the rest, in each frame's pose
    moved = codec.points(face, still, face, own + 1)
    assert np.abs(moved - again).max() > 0.1


def test_slow_is_a_mean_over_what_is_there() -> None:
    track = np.arange(10.0)[:, None]
    out = blendshape.slow(track, 5)[:, 0]
    np.testing.assert_allclose(out[[0, 5, 9]], [1.0, 5.0, 8.0])


def test_lips_are_smoothed_as_released_and_tracks_held() -> None:
    spike = np.zeros((5, 1), np.float32)
    spike[2] = 1
    np.testing.assert_allclose(smoothed_lips(spike)[:, 0], [0, 0.27406862, 0.45186276, 0.27406862, 0], atol=1e-6)
    # conv_feat of C-MET, in every bit: a convolution in float32 with one group for each of the 20 weights
    lips = torch.randn(32, 20, generator=torch.Generator().manual_seed(0))
    taps = torch.tensor([0.27406862, 0.45186276, 0.27406862]).expand(20, 1, 3)
    whole = torch.nn.functional.conv1d(lips.T[None], taps, padding=1, groups=20)[0].T
    np.testing.assert_array_equal(smoothed_lips(lips.numpy()), whole)
    assert held(np.arange(3), 5).tolist() == [0, 1, 2, 2, 2]


# -- speech ------------------------------------------------------------------------------------------------------------


def test_prosody_measures_pitch_and_loudness() -> None:
    t = np.arange(16000) / 16000
    low, high = ((4000 * np.sign(np.sin(2 * np.pi * f * t))).astype(np.int16) for f in (120, 240))
    a, b = (speech.Prosody().encode(x) for x in (low, high))
    assert np.exp(a[0]) == pytest.approx(120, rel=0.02)
    assert np.exp(b[0]) == pytest.approx(240, rel=0.02)
    quiet = speech.Prosody().encode((low // 10).astype(np.int16))
    assert a[4] - quiet[4] == pytest.approx(20, abs=0.5)
    assert np.isfinite(speech.Prosody().encode(np.zeros(1000, np.int16))).all()
    with pytest.raises(ClipError):
        speech.Prosody().encode(low.astype(np.float32))


def test_pool_scores_by_hand() -> None:
    """One number, white already; centres 0 (neutral) and 4, the others out of reach."""
    centres = np.full((8, 1), 1e3, np.float32)
    centres[EMOTIONS.index("neutral")], centres[EMOTIONS.index("happy")] = 0, 4
    nobody = np.zeros((0, 1), np.float32)
    pools = speech.PoolEncoder("emotions", np.zeros(1, np.float32), np.eye(1, dtype=np.float32), centres, nobody)
    rest = np.array([[10.0], [20.0]])  # two people
    one, two = (pools.scores(np.array(x), rest) for x in ([[23.0]], [[23.0], [23.0]]))
    happy, neutral = (np.exp(-(a**2) / 4) + np.exp(-(b**2) / 4) for a, b in ((9, 1), (13, 3)))
    gap = np.log(happy) - np.log(neutral)
    at = [EMOTIONS.index("happy"), EMOTIONS.index("neutral")]
    assert one[at[0]] - one[at[1]] == pytest.approx(gap, rel=1e-5)
    assert two[at[0]] - two[at[1]] == pytest.approx(2 * gap / (1 + speech.ALIKE), rel=1e-5)
    speech_vectors = pools(np.array([[23.0]]), rest)
    assert speech_vectors[at].tolist() == pytest.approx([1 / (1 + np.exp(-gap)), 1 / (1 + np.exp(gap))], rel=1e-5)
    assert speech_vectors.sum() == pytest.approx(1)
    np.testing.assert_array_equal(pools.direction(rest, rest, rest), 0)
    # With a third person, of the training split, who may be the one that speaks.
    third = replace(pools, known=np.array([[18.0]], np.float32)).scores(np.array([[23.0]]), rest)
    shares = (0.8 * (np.exp(-(a**2) / 4) + np.exp(-(b**2) / 4)) / 2 + 0.2 * np.exp(-(c**2) / 4)
              for a, b, c in ((9, 1, 1), (13, 3, 5)))  # fmt: skip
    assert third[at[0]] - third[at[1]] == pytest.approx(np.subtract(*np.log(list(shares))), rel=1e-5)


def test_the_emotion_of_a_pool_does_not_depend_on_its_speakers() -> None:
    """Differences between people are a hundred times those between emotions, and the pools are of other people."""
    draw = np.random.default_rng(0)
    offsets = {"neutral": (0, 0, 0), "angry": (6, 0, 0), "happy": (0, 6, 0), "sad": (0, 0, 6)}

    def utterances(people: np.ndarray, emotion: str) -> np.ndarray:
        return people + offsets[emotion] + draw.normal(size=(len(people), 3))

    people = 600 * draw.normal(size=(4, 3))
    rows = [(k, e) for k in range(4) for e in offsets for _ in range(5)]
    vectors = np.concatenate([utterances(people[[k]], e) for k, e in rows])
    who, what = [str(k) for k, _ in rows], [e for _, e in rows]
    pools = speech.fit_pool_encoder("emotions", vectors, who, what)
    others = 600 * draw.normal(size=(3, 3))
    rest = utterances(others[[0, 1, 2, 2]], "neutral")
    for emotion in offsets:
        speech_vectors = pools(utterances(others[[0, 0, 1]], emotion), rest)
        assert speech_vectors[EMOTIONS.index(emotion)] > 0.99
        assert speech_vectors[[EMOTIONS.index(e) for e in EMOTIONS if e not in offsets]].max() == 0  # never shown
    plain = speech.fit_pool_encoder("mean", vectors, who, what)
    pool = utterances(others[[0]], "sad")
    np.testing.assert_array_equal(plain.direction(rest, pool, rest), pool.mean(axis=0) - rest.mean(axis=0))
    # 60 clips of three emotions: their standard deviation about its centre is 1 along each axis, except for shrinkage.
    assert np.allclose(np.diag(pools.white.T @ pools.white), 1, atol=0.6)


def test_stored_vectors_are_found_in_both_layouts_and_never_unpickled(tmp_path: Path) -> None:
    np.save(_made(tmp_path / "mead/M003/front/angry/3/001.npy"), np.arange(4.0))
    np.save(_made(tmp_path / "M003/front/angry/level_3/emotion2vec+large_features/002.npy"), np.ones(4, np.float32))
    stored = speech.StoredVectors(tmp_path)
    silence = np.zeros(640, np.int16)
    assert stored.encode(silence, "mead/M003/front/angry/3/001").tolist() == [0, 1, 2, 3]
    assert stored.encode(silence, "mead/M003/front/angry/3/002").tolist() == [1, 1, 1, 1]
    with pytest.raises(ClipError, match="003"):
        stored.encode(silence, "mead/M003/front/angry/3/003")
    np.save(tmp_path / "mead/M003/front/angry/3/004.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ClipError) as error:
        stored.encode(silence, "mead/M003/front/angry/3/004")
    assert error.value.reason == Reason.UNREADABLE


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_emotion2vec_is_called_as_funasr_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a stand-in of the form of FunASR 1.4: AutoModel(model=FOLDER).generate(...) -> [{"feats": ...}]."""
    with pytest.raises(UserError, match="modelscope download"):
        speech.Emotion2Vec(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"weights")
    monkeypatch.setitem(sys.modules, "funasr", None)
    with pytest.raises(UserError, match="pip install funasr"):
        speech.Emotion2Vec(tmp_path)

    class AutoModel:
        def __init__(self, **kwargs: object) -> None:
            assert kwargs["model"] == str(tmp_path)

        def generate(self, wave: np.ndarray, **kwargs: object) -> list[dict[str, object]]:
            assert wave.dtype == np.float32
            assert kwargs["granularity"] == "utterance"
            return [{"key": "x", "feats": np.full(1024, wave.max(), np.float32)}]

    monkeypatch.setitem(sys.modules, "funasr", types.SimpleNamespace(AutoModel=AutoModel))
    encoder = speech.Emotion2Vec(tmp_path)
    assert encoder.encode(np.full(640, 16384, np.int16)).tolist() == [0.5] * 1024
    assert encoder.name.startswith("emotion2vec@")
