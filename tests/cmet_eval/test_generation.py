"""What a case hands out is what the pair's clips hold; controls and retrieval take the clips they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cmet_baselines.method import ARRAYS, INPUTS, Case
from cmet_baselines.registry import get_method
from cmet_baselines.trivial import sound_distance
from cmet_eval.protocol.draw import Draw, draw_pairs
from cmet_eval.protocol.setting import get_setting
from cmet_eval.runs.cases import make_case
from cmet_eval.runs.evaluate import run
from cmet_eval.runs.generate import refuse_training_clips
from cmet_eval.runs.metrics import Scoring
from cmet_pipelines.shards import ShardSet
from cmet_reference.geometry import template_of
from talking_face.clip import Pair
from talking_face.execution.options import RunOptions
from talking_face.reasons import ClipError, Reason


@pytest.fixture
def data(shards: Path, monkeypatch: pytest.MonkeyPatch) -> ShardSet:
    """The tiny set with D as its training split, and heads that move: the drawn ones have no landmarks."""
    found = ShardSet(shards)
    found.clips["split"] = np.where(found.clips["speaker"] == "D", "train", "test")
    face = np.random.default_rng(0).normal(0, 10, (478, 3)).astype(np.float32) + 32

    def landmarks(clip_id: str, smoothed: bool = False) -> np.ndarray:
        track = face + np.arange(len(found.valid(clip_id)), dtype=np.float32)[:, None, None]
        track[2] = np.nan
        return track

    monkeypatch.setattr(found, "landmarks", landmarks)
    return found


@pytest.fixture
def pair(data: ShardSet) -> Pair:
    pairs = draw_pairs(data.clips, get_setting("neutral-base"), Draw(seeds=1)).pairs
    return next(p for p in pairs if p.target_emotion == "happy")


def everything(data: ShardSet, pair: Pair) -> Case:
    return make_case(data, pair, 12, frozenset(INPUTS))


def test_every_array_is_there_and_of_the_pairs_own_clips(data: ShardSet, pair: Pair) -> None:
    case, truth = everything(data, pair), str(pair.ground_truth_clip)
    assert set(case.offered()) == set(ARRAYS) and all(getattr(case, name) is not None for name in ARRAYS)
    np.testing.assert_array_equal(case.ground_truth_frames, data.frames(truth))
    np.testing.assert_array_equal(case.upper_half_frames[:, :32], case.ground_truth_frames[:, :32])
    assert not case.upper_half_frames[:, 32:].any()
    assert len(case.source_landmarks) == len(case.source_frames) and np.isfinite(case.source_landmarks).all()
    assert case.reference_landmarks.shape == (5, 478, 3)
    for pool, names in ((case.emotion_audio, pair.emotion_audio), (case.neutral_audio, pair.neutral_audio)):
        assert len(pool) == len(names) > 0
        np.testing.assert_array_equal(pool[0], data.audio(names[0]))


def test_the_true_pose_takes_the_template_to_the_picture(data: ShardSet, pair: Pair) -> None:
    case = everything(data, pair)
    template, pose = template_of(case.reference_landmarks), case.ground_truth_pose
    placed = np.einsum("pj,tij->tpi", template, pose[..., :3]) + pose[:, None, :, 3]
    np.testing.assert_allclose(placed, case.ground_truth_landmarks, atol=1e-3)


def test_the_other_take_says_something_else_and_its_absence_is_told(data: ShardSet, pair: Pair) -> None:
    frames = everything(data, pair).other_take_frames
    others = set(data.clips["clip_id"][(data.clips.speaker == pair.speaker) & (data.clips.emotion == "happy")])
    (other,) = others - {str(pair.ground_truth_clip)}
    np.testing.assert_array_equal(frames, data.frames(other))
    data.clips["sentence_id"] = "s1"  # every clip says the same
    with pytest.raises(ClipError, match="no other happy clip"):
        everything(data, pair).other_take_frames  # noqa: B018


def test_retrieval_takes_the_nearest_sound_of_the_emotion(
    data: ShardSet, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    sounds = {clip: rng.normal(0, 3000, 7680).astype(np.int16) for clip in data.clips["clip_id"]}
    sounds["clips/D/happy/2"] = sounds[pair.driving_clip]
    sounds["clips/D/sad/1"] = sounds[pair.driving_clip]  # as near, but not happy
    monkeypatch.setattr(data, "audio", lambda clip: sounds[clip].copy())
    for name, clip in (("retrieval", "clips/D/happy/2"), ("retrieval-by-sound", "clips/D/happy/2")):
        method = get_method(name)
        np.testing.assert_array_equal(method.generate(make_case(data, pair, 12, method.sees)), data.frames(clip))
    sounds["clips/D/happy/2"] = rng.normal(0, 3000, 7680).astype(np.int16)
    by_sound = get_method("retrieval-by-sound")
    got = by_sound.generate(make_case(data, pair, 12, by_sound.sees))
    np.testing.assert_array_equal(got, data.frames("clips/D/sad/1"))


def test_sound_distance_by_hand() -> None:
    a, b = np.zeros((4, 13)), np.zeros((2, 13))
    b[1, 0] = 2.0  # rows 0 0 1 1 of b stand against a
    assert sound_distance(a, b) == 1.0 and sound_distance(b, b) == 0.0


def test_a_method_is_not_scored_on_what_it_was_trained_on(pair: Pair) -> None:
    class Learnt:
        name, revision, sees = "learnt", "1", frozenset[str]()
        trained_on = frozenset({pair.driving_clip})

    with pytest.raises(ClipError, match=f"learnt was trained on {pair.driving_clip}") as caught:
        refuse_training_clips(Learnt(), pair)  # type: ignore[arg-type]
    assert caught.value.reason is Reason.TRAINED_ON
    Learnt.trained_on = frozenset({"another"})
    refuse_training_clips(Learnt(), pair)  # type: ignore[arg-type]


def test_a_class_in_its_own_process_runs_without_workers(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import numpy as np\nclass Still:\n    name, revision, sees = 'still', '1', ('reference-frames',)\n"
    text += (
        "    def generate(self, case):\n        return np.repeat(case.reference_frames[:1], case.n_frames, axis=0)\n"
    )
    (tmp_path / "still_method.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    summary = run(
        ["still_method:Still"],
        ["cross-emotion"],
        data=shards,
        out=tmp_path / "out",
        draw=Draw(seeds=1, max_pairs=2),
        scoring=Scoring(("psnr:frame-mean",)),
        options=RunOptions(workers=0, quiet=True),
    )
    assert summary.generated == 2 and not summary.lost
