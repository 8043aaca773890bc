"""C-MET: the connector's shapes and counts, losses by hand, the sampler's leak, codec, speech and generation."""

import re
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cmet_reference.clips import ClipArrays
from cmet_reference.cmet import ablation, blendshape, figures, generate, losses, speech
from cmet_reference.cmet.blendshape import BlendshapeCodec
from cmet_reference.cmet.codec import Face, held, smoothed_lips
from cmet_reference.cmet.connector import Connector, ConnectorSettings, Tokens, from_released
from cmet_reference.cmet.data import CodedClips, Sampler, Sampling
from cmet_reference.cmet.generate import CMetFace
from cmet_reference.cmet.train import CMetSettings, CMetStage, read_settings
from cmet_reference.training import checkpoints, config
from talking_face.emotions import EMOTIONS
from talking_face.pretrained.store import MissingWeights
from talking_face.reasons import ClipError, Reason, UserError
from tests import edtalk_stand_in
from tests.cmet_eval.conftest import make_record, write_shard_set
from tests.models import models

SMALL = ConnectorSettings(speech=6, width=16, layers=1, heads=2, feed_forward=16, dropout=0.0)


# -- connector ---------------------------------------------------------------------------------------------------------


def test_the_paper_connector_has_27_691_096_parameters_layer_by_layer() -> None:
    net = Connector()
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in net.named_children()}
    d, f = 1024, 1024
    layer = 3 * d * d + 3 * d + d * d + d + d * f + f + f * d + d + 4 * d
    blocks = [(1, 4, 3), (4, 8, 3), (8, 8, 3), (8, 8, 3), (8, 16, 3), (16, 16, 3), (16, 16, 3), (16, 32, 2)]
    blocks += [(32, 64, 1), (64, 128, 1), (128, 256, 1), (256, 512, 1), (512, 1024, 1)]
    tokenizer = sum(a * b * k + 3 * b for a, b, k in blocks)  # convolution's bias, batch norm's two
    assert len(blocks) == len(net.input_tokenizer.blocks) == 13
    assert count == {
        "modality": 4 * d,
        "dropout": 0,
        "encoder": 4 * layer,
        "input_tokenizer": tokenizer,
        "reference_tokenizer": tokenizer,
        "speech_tokenizer": d * d + d + 2 * d,
        "head": d * 10 + 10 + 10 * 10 + 10,
        "visual_norm": 2 * d,
    }
    assert sum(count.values()) == 27_691_096


@pytest.mark.parametrize("code", [10, 30])
def test_the_connector_reads_codes_of_any_size_and_gives_a_direction_for_each_frame(code: int) -> None:
    net = Connector(replace(SMALL, code=code)).eval()
    out, tokens = net(torch.zeros(3, 5, code), torch.randn(3, 1, 6), torch.randn(3, 5, code))
    assert out.shape == (3, 5, code)
    assert [t.shape for t in tokens] == [(3, 5, 16), (3, 1, 16), (3, 5, 16)]


def test_a_code_of_ten_is_one_position_after_the_strided_convolutions() -> None:
    net = Connector(SMALL).eval()
    x = torch.randn(2, 1, 10)
    lengths = []
    for block in net.input_tokenizer.blocks:
        x = block(x)
        lengths.append(x.shape[-1])
    assert lengths == [10, 5, 5, 5, 3, 3, 3, 1, 1, 1, 1, 1, 1]


def test_reference_and_input_positions_both_begin_at_zero_and_the_speech_token_has_none() -> None:
    net = Connector(SMALL).eval()
    seen = []
    net.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    _, tokens = net(torch.randn(1, 5, 10), torch.randn(1, 1, 6), torch.randn(1, 5, 10))
    added = seen[0] - torch.cat(tokens, dim=1)
    angle = torch.arange(5).float()[:, None] * torch.tensor([10000 ** (-2 * (i // 2) / 16) for i in range(16)])
    table = torch.where(torch.arange(16) % 2 == 0, angle.sin(), angle.cos())
    kind = net.modality.weight
    assert seen[0].shape == (1, 11, 16)
    torch.testing.assert_close(added[0], torch.cat([table + kind[1], kind[2][None], table + kind[3]]))


def test_released_names_are_taken_over_and_an_unknown_one_is_refused() -> None:
    released = {
        "fusion_transformer_encoder.position_r.pe": torch.zeros(1),
        "fusion_transformer_encoder.modality.weight": torch.zeros(1),
        "exp_encoder.0.conv_block.0.weight": torch.zeros(1),
        "ref_encoder.12.conv_block.1.running_mean": torch.zeros(1),
        "speaker_encoder.proj.bias": torch.zeros(1),
        "projector.projector.2.weight": torch.zeros(1),
        "Norm.weight": torch.zeros(1),
    }
    names = set(Connector(SMALL).state_dict())
    assert set(from_released(released)) == {
        "modality.weight",
        "input_tokenizer.blocks.0.conv.weight",
        "reference_tokenizer.blocks.12.norm.running_mean",
        "speech_tokenizer.linear.bias",
        "head.2.weight",
        "visual_norm.weight",
    }
    assert set(from_released(released)) <= names
    with pytest.raises(KeyError, match="other"):
        from_released({"other.weight": torch.zeros(1)})


# -- losses ------------------------------------------------------------------------------------------------------------


def test_reconstruction_losses_by_hand() -> None:
    x, y = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 0.0], [0.0, 0.0]])

    def weight(e: float) -> float:
        return 2 / (1 + np.exp(-0.2 * e)) - 1

    assert losses.focal_mse(x, y).item() == pytest.approx((1 * weight(1) + 4 * weight(2)) / 4, rel=1e-6)
    small = losses.focal_mse(torch.tensor([0.01]), torch.zeros(1)).item()
    assert small == pytest.approx(0.1 * 0.01**3, rel=1e-3)  # cubic where the error is small
    assert losses.weighted_mse(x, y, torch.tensor([2.0, 0.5])).item() == pytest.approx((0.5 * 2 + 2 * 0.5) / 2)
    assert losses.reconstruction(x, y, losses.LossSettings(reconstruction="mse")).item() == pytest.approx(1.25)
    # Of prediction 0 the targets are at squared distances 1 and 1; of prediction 1 at 5 and 1.
    target = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    by_hand = (np.log(2) + np.log(1 + np.exp((1 - 5) / 2 / 4)) - 0) / 2
    predicted = torch.tensor([[1.0, 0.0], [0.0, 1.0]]) + torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert losses.balanced_mse(predicted, target, torch.tensor(2.0)).item() == pytest.approx(by_hand, rel=1e-6)


def test_contrast_by_hand_and_its_sign_pairing() -> None:
    visual, speech_vectors = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    # Four unit features; each has one positive at cosine 1 and two others at cosine 0.
    by_hand = -np.log(np.exp(2) / (np.exp(2) + 2))
    result = losses.contrastive(visual, speech_vectors, torch.tensor([0, 1]), temperature=0.5)
    assert result.item() == pytest.approx(by_hand, rel=1e-5)
    # +speech is paired with -vision: tokens of this pairing are closer than tokens of the opposite one.
    zero = torch.zeros(2, 5, 2)
    forward = Tokens(zero, speech_vectors[:, None], zero)
    away = Tokens(zero, -speech_vectors[:, None], -visual[:, None].expand(2, 5, 2))
    towards = Tokens(zero, -speech_vectors[:, None], visual[:, None].expand(2, 5, 2))
    labels = torch.tensor([0, 1])
    assert losses.both_contrasts(forward, away, labels) < losses.both_contrasts(forward, towards, labels)


def test_direction_loss_in_both_forms() -> None:
    a, b = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[-2.0, 0.0], [0.0, 1.0]])  # cosines -1 and 0
    assert losses.opposite(a, b, "code").item() == pytest.approx(0.5)
    assert losses.opposite(a, -b, "code").item() == pytest.approx((4 + 1) / 2)
    assert losses.opposite(a, -b, "paper").item() == pytest.approx((2 + 1) / 2)


# -- sampler -----------------------------------------------------------------------------------------------------------


def _coded(speakers: int = 2, takes: int = 2, frames: int = 20) -> CodedClips:
    draw = np.random.default_rng(0)
    rows = [(f"S{s}", e, k) for s in range(speakers) for e in EMOTIONS for k in range(takes)]
    offsets = draw.normal(size=(len(EMOTIONS), 10))
    codes = [
        (offsets[EMOTIONS.index(e)] + 0.1 * draw.normal(size=(frames + k, 10))).astype(np.float32) for _, e, k in rows
    ]
    speech_vectors = np.stack([np.eye(8)[EMOTIONS.index(e)][:6] + 0.01 * draw.normal(size=6) for _, e, _ in rows])
    return CodedClips(
        [f"mead/{s}/front/{e}/1/{k + 1:03d}" for s, e, k in rows],
        [s for s, _, _ in rows],
        [e for _, e, _ in rows],
        [1] * len(rows),
        codes,
        speech_vectors.astype(np.float32),
    )


def _sampler(clips: CodedClips, sampling: Sampling, seed: int = 0) -> Sampler:
    """With the pool rule of the released code."""
    return Sampler(clips, sampling, seed, speech.fit_pool_encoder("mean", clips.speech, clips.speakers, clips.emotions))


def test_a_batch_is_a_pure_function_of_seed_and_step() -> None:
    a, b = (_sampler(_coded(), Sampling(batch=6), 3) for _ in range(2))
    a.batch(7)
    for name, value in a.batch(2).items():
        np.testing.assert_array_equal(value, b.batch(2)[name])
    assert (a.batch(2)["speech"] != a.batch(3)["speech"]).any()
    assert (a.batch(2)["source"] != _sampler(_coded(), Sampling(batch=6), 4).batch(2)["source"]).any()


def test_the_released_reference_holds_the_answer_and_the_others_do_not() -> None:
    batch = _sampler(_coded(), Sampling(batch=64), 0).batch(0)
    direction, reference = batch["direction"], batch["reference"]
    assert (direction == direction[:, :1]).all()  # constant in time
    filled = (reference != 0).any(axis=2)
    assert filled.any(axis=1).mean() > 0.8  # a window that starts at 0 is one of 16
    leak = np.where(filled[:, :, None], direction, 0)
    np.testing.assert_array_equal(reference, leak)
    assert (np.diff(filled.astype(int), axis=1) >= 0).all()  # padded on the left
    zero = _sampler(_coded(), Sampling(batch=64, reference="zero"), 0).batch(0)
    assert not zero["reference"].any()
    predicted = _sampler(_coded(), Sampling(batch=64, reference="predicted"), 0).batch(0)
    assert not predicted["reference"].any()
    assert 0.1 < predicted["has_before"].mean() < 0.6


def test_codes_are_means_of_clips_and_the_direction_is_their_mean_difference() -> None:
    clips = _coded(takes=1)
    batch = _sampler(clips, Sampling(batch=16), 0).batch(0)
    names = dict(zip(clips.clip_ids, clips.codes, strict=True))
    for source, target, direction in zip(batch["source"], batch["target"], batch["direction"], strict=True):
        # One take a cell: the mean of ten draws is the clip itself.
        (one,) = [c for c in names.values() if any(np.allclose(c[i : i + 5], source, atol=1e-6) for i in range(16))]
        (two,) = [c for c in names.values() if any(np.allclose(c[i : i + 5], target, atol=1e-6) for i in range(16))]
        np.testing.assert_allclose(direction[0], (two - one).mean(axis=0), atol=1e-6)


def test_speech_pools_go_over_all_speakers_with_strides_one_and_seven() -> None:
    clips = _coded(speakers=3, takes=4)
    sampler = _sampler(clips, Sampling(speech_clips=10), 0)
    happy = [i for i, e in enumerate(clips.emotions) if e == "happy"]
    angry = [i for i, e in enumerate(clips.emotions) if e == "angry"]
    by_hand = np.mean([clips.speech[angry[(5 + 7 * k) % 12]] for k in range(10)], axis=0)
    by_hand = by_hand - np.mean([clips.speech[happy[(5 + k) % 12]] for k in range(10)], axis=0)
    np.testing.assert_allclose(sampler.speech_direction("happy", "angry", 1, 5), by_hand, rtol=1e-5)


def test_mead_numbers_and_a_split_without_pairs() -> None:
    clips = _coded(takes=4)
    sampler = _sampler(clips, Sampling(takes="released"), 0)
    assert {clips.clip_ids[i][-3:] for i in sampler.index} == {"001", "002", "003"}
    alone = [i for i, e in enumerate(clips.emotions) if e == "happy"]
    with pytest.raises(UserError, match="pairs"):
        _sampler(_part(clips, alone), Sampling(), 0)


def _part(clips: CodedClips, index: list[int]) -> CodedClips:
    return CodedClips(
        *(
            [values[i] for i in index]
            for values in (clips.clip_ids, clips.speakers, clips.emotions, clips.levels, clips.codes)
        ),
        clips.speech[index],
    )


# -- the stage ---------------------------------------------------------------------------------------------------------


def _clips(speakers: tuple[str, ...], frames: int = 20) -> list[ClipArrays]:
    """Faces of random points, whose mouths and coefficients follow the emotion; sounds whose pitch does."""
    draw = np.random.default_rng(len(speakers))
    face = np.random.default_rng(1).normal(size=(478, 3)) * 40 + 128
    out = []
    for s, speaker in enumerate(speakers):
        for k, emotion in enumerate(EMOTIONS):
            for take in (1, 2):
                shapes = 0.3 + 0.2 * np.sin(np.arange(52) * (k + 1)) + 0.02 * draw.normal(size=(frames, 52))
                points = face + 2 * np.sin(np.arange(478) * (k + 1))[:, None] + 0.2 * draw.normal(size=(frames, 478, 3))
                t = np.arange(640 * frames) / 16000
                wave = 8000 * np.sin(2 * np.pi * (100 + 15 * k + 30 * s) * t) + 100 * draw.normal(size=len(t))
                arrays = points.astype(np.float32), shapes.clip(0, 1).astype(np.float32), wave.astype(np.int16)
                clip_id = f"mead/{speaker}/front/{emotion}/1/{take:03d}"
                out.append(ClipArrays(Path(), clip_id, "mead", speaker, emotion, 1, None, *arrays))
    return out


def _stage(seed: int = 0, reference: str = "released", reconstruction: str = "focal_mse") -> CMetStage:
    settings = CMetSettings(
        steps=10,
        rate=3e-3,
        connector=SMALL,
        sampling=Sampling(batch=8, reference=reference),  # type: ignore[arg-type]
        losses=losses.LossSettings(reconstruction=reconstruction),  # type: ignore[arg-type]
    )
    train = _clips(("M1", "W1"))
    return CMetStage(
        settings, BlendshapeCodec(blendshape.fit_model(train)), speech.Prosody(), train, _clips(("M2",)), seed
    )


@pytest.fixture(scope="module")
def stage() -> CMetStage:
    return _stage()


def _tensors(stage: CMetStage, step: int) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in stage.batch(step).items()}


@pytest.mark.parametrize("reference", ["released", "predicted"])
def test_gradients_reach_every_parameter(reference: str) -> None:
    stage = _stage(reference=reference, reconstruction="bmse")
    stage.net.train()
    loss, parts = stage.loss(_tensors(stage, 0), "net")
    loss.backward()
    assert set(parts) == {"reconstruction", "contrast", "direction"}
    # A convolution's bias before batch norm has a gradient of rounding only, but it is reached.
    assert [name for name, p in stage.net.named_parameters() if p.grad is None] == []


def test_one_batch_overfits_and_the_same_seed_gives_the_same_weights() -> None:
    ends = []
    for steps in (40, 4, 4):
        stage = _stage()
        batch, optimizer = _tensors(stage, 0), torch.optim.AdamW(stage.net.parameters(), lr=1e-2)
        stage.net.train()
        torch.manual_seed(0)
        curve = []
        for _ in range(steps):
            loss, parts = stage.loss(batch, "net")
            curve.append(float(parts["reconstruction"].detach()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if steps == 40:
            assert curve[-1] < 0.2 * curve[0]
        ends.append(torch.cat([p.detach().flatten() for p in stage.net.parameters()]))
    assert torch.equal(ends[1], ends[2])


def test_held_out_figures_know_a_perfect_and_a_useless_prediction(
    stage: CMetStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stage.held_out_clips is not None
    lookup = stage.net.label_codes.numpy()
    seen = iter(range(100))
    order = [e for e in EMOTIONS if e != "neutral"] * 2

    def perfect(connector: object, speech_vectors: np.ndarray, codes: np.ndarray, reference: str) -> np.ndarray:
        next(seen)
        return np.stack([np.repeat(lookup[EMOTIONS.index(e)][None], codes.shape[1], axis=0) for e in order])

    monkeypatch.setattr(figures, "predict", perfect)
    result = figures.directions(stage.net.connector, stage.held_out_clips, lookup, stage.pool_encoder)
    assert result["cosine"] == pytest.approx(result["cosine_lookup"])
    assert result["emotion_accuracy"] == 1.0
    monkeypatch.setattr(figures, "predict", lambda c, h, codes, r: np.ones_like(codes))  # the same for every emotion
    assert figures.directions(stage.net.connector, stage.held_out_clips, lookup, stage.pool_encoder)["cosine"] == 0.0


def test_no_figures_without_neutral_training_clips(stage: CMetStage) -> None:
    assert stage.held_out_clips is not None
    nothing = np.zeros_like(stage.net.label_codes.numpy())
    assert figures.directions(stage.net.connector, stage.held_out_clips, nothing, stage.pool_encoder) == {}


def test_configurations_are_read_and_unknown_fields_refused() -> None:
    adapted, demo = (read_settings(config.load("cmet_reference.cmet", name)) for name in ("adapted", "demo"))
    assert replace(adapted.connector, speech=1024) == ConnectorSettings()
    assert adapted.losses == losses.LossSettings()
    assert adapted.sampling == Sampling()
    assert (adapted.rate, adapted.weight_decay, adapted.steps) == (1e-4, 1e-5, 200_000)
    assert demo.connector.window == 5
    with pytest.raises(UserError, match="depth"):
        read_settings({"connector": {"depth": 3}})


# -- codec -------------------------------------------------------------------------------------------------------------


def test_the_blendshape_codec_explains_the_training_split_and_is_exact_at_rest() -> None:
    clips = _clips(("M1", "W1"))
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


def test_unit_vectors_need_the_pool_rule_mean() -> None:
    clips = _coded()
    pools = speech.fit_pool_encoder("emotions", clips.speech, clips.speakers, clips.emotions)
    with pytest.raises(UserError, match="scale_intensity"):
        Sampler(clips, Sampling(scale_intensity=True), 0, pools)


def test_drawn_pools_are_of_speakers_who_show_both_emotions() -> None:
    clips = _coded(speakers=3, takes=2)
    alone = _part(clips, [i for i in range(len(clips)) if (clips.speakers[i], clips.emotions[i]) != ("S1", "happy")])
    sampler = _sampler(alone, Sampling(speech_speakers="some", speech_clips=200), 0)
    others = [i for i in range(len(alone)) if alone.speakers[i] != "S1"]
    limits = [[alone.speech[i] for i in others if alone.emotions[i] == e] for e in ("angry", "happy")]
    seen = np.stack([sampler.drawn_speech("angry", "happy", 1, np.random.default_rng(k)) for k in range(20)])
    assert seen.std(axis=0).max() > 0
    low, high = (f(limits[1], axis=0) - g(limits[0], axis=0) for f, g in ((np.min, np.max), (np.max, np.min)))
    assert ((seen >= low - 1e-6) & (seen <= high + 1e-6)).all()


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


# -- generation --------------------------------------------------------------------------------------------------------


def test_blocks_refer_to_the_prediction_before(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Connector(SMALL)
    seen = []
    real = Connector.forward

    def forward(self: Connector, reference: torch.Tensor, speech_vectors: torch.Tensor, codes: torch.Tensor) -> object:
        out = real(self, reference, speech_vectors, codes)
        seen.append((reference, out[0]))
        return out

    monkeypatch.setattr(Connector, "forward", forward)
    out = figures.predict(net, np.ones((2, 6)), np.random.default_rng(0).normal(size=(2, 12, 10)))
    assert out.shape == (2, 12, 10)
    assert len(seen) == 3
    assert not seen[0][0].any()
    assert torch.equal(seen[1][0], seen[0][1])
    assert torch.equal(seen[2][0], seen[1][1])


def test_released_tracks_drop_twenty_frames_and_go_back_and_forth() -> None:
    net, codes = Connector(SMALL), np.random.default_rng(0).normal(size=(33, 10)).astype(np.float32)
    whole = generate.expression_track(net, np.ones(6), codes, 33, generate.Inference())
    released = generate.expression_track(net, np.ones(6), codes, 33, generate.RELEASED)
    np.testing.assert_array_equal(released[:10], whole[:10])  # 30 in whole blocks, 10 left
    np.testing.assert_array_equal(released[10:20], whole[:10][::-1])
    # The longer track is mirrored as a whole: 10, 20, 40 frames.
    np.testing.assert_array_equal(released[20:33], released[:20][::-1][:13])
    with pytest.raises(ClipError, match="20 frames"):
        generate.expression_track(net, np.ones(6), codes[:24], 33, generate.RELEASED)


# -- the authors' codecs, on stand-ins of the form of their repositories -----------------------------------------------


def test_the_edtalk_codec_loads_a_checkout_and_its_weights(tmp_path: Path) -> None:
    from cmet_reference.cmet import edtalk

    with pytest.raises(UserError, match="not a checkout of EDTalk"):
        edtalk.EDTalkCodec(tmp_path)
    edtalk_stand_in.write_code(tmp_path)
    with pytest.raises(UserError, match=r"EDTalk\.pt is absent"):
        edtalk.EDTalkCodec(tmp_path)
    weights = tmp_path / "pretrained_weights"
    weights.mkdir()
    module = edtalk.import_from(tmp_path / "networks", "generator")
    state = module.Generator(256, 512, 20, 6, 10, 1).state_dict()
    lips = edtalk.import_from(tmp_path / "networks", "audio_encoder").Audio2Lip().state_dict()
    torch.save({"gen": state}, weights / "EDTalk.pt")
    torch.save({"audio2lip": lips, "optimizer": Path("x")}, weights / "Audio2Lip.pt")
    with pytest.raises(UserError, match=r"Audio2Lip\.pt cannot be read as tensors"):
        edtalk.EDTalkCodec(tmp_path)
    torch.save({"audio2lip": lips}, weights / "Audio2Lip.pt")
    codec = edtalk.EDTalkCodec(tmp_path)
    frames = np.stack([np.full((32, 24, 3), v, np.uint8) for v in (0, 128, 255)])
    face = Face(frames)
    codes = codec.encode(face)
    w = {name: value.numpy() for name, value in state.items()}
    styles = np.array([-1, 128 / 127.5 - 1, 1])[:, None] * w["enc.conv.weight"].sum((1, 2, 3)) + w["enc.conv.bias"]
    shared = styles @ w["fc.weight"].T + w["fc.bias"]
    expected = shared @ w["exp_fc.weight"].T + w["exp_fc.bias"]
    np.testing.assert_allclose(codes, expected, atol=1e-5)
    speech_vectors = codec.lips(np.zeros(640 * 4, np.int16), face, 4)
    assert speech_vectors.shape == (4, 20)
    video = codec.decode(face, speech_vectors, face, np.full((2, 10), 0.05, np.float32))
    assert video.shape == (4, 256, 256, 3)
    poses = (shared @ w["pose_fc.weight"].T + w["pose_fc.bias"])[[0, 1, 2, 2]]
    moved = styles[0].mean() + np.hstack([speech_vectors, poses, np.full((4, 10), 0.05)]).mean(axis=1)
    grey = ((0.5 - moved).clip(-1, 1) + 1) * 127.5  # ten codes of 0.05 are 0.5; the picture of the identity is -1
    assert np.abs(video - grey[:, None, None, None]).max() <= 0.51
    with pytest.raises(ClipError, match="frames"):
        codec.encode(Face(landmarks=np.zeros((1, 478, 3))))


def test_the_pd_fgc_codec_says_what_is_missing(tmp_path: Path) -> None:
    from cmet_reference.cmet import pd_fgc

    with pytest.raises(UserError, match="not a checkout of PD-FGC"):
        pd_fgc.PDFGCCodec(tmp_path)


def test_a_checkpoint_of_an_earlier_version_says_what_to_run(stage: CMetStage, tmp_path: Path) -> None:
    path, record = tmp_path / "cmet.safetensors", dict(stage.record())
    text = "was trained by an earlier version; train again: `cmet-eval train cmet --stage cmet --data SHARDS --fresh`"
    for missing in ("heard", "encoded", "strength"):
        checkpoints.save(path, stage.net.state_dict(), {k: v for k, v in record.items() if k != missing})
        with pytest.raises(UserError, match=re.escape(text)):
            CMetFace(tmp_path, files=models())
    state = {**stage.net.state_dict(), "label_speech": torch.zeros(8, 1)}
    checkpoints.save(path, state, record)
    with pytest.raises(UserError, match=re.escape(text)):
        CMetFace(tmp_path, files=models())


def test_pictures_of_the_ablation_show_several_emotions() -> None:
    """112 combinations and 16, 8 or 4 videos: an even stride would take one emotion only."""
    pools = {"neutral": list(range(16))} | {emotion: [] for emotion in EMOTIONS if emotion != "neutral"}
    for count, least in ((16, 4), (8, 3), (4, 2)):
        cases = ablation.cases_of(pools, count)  # type: ignore[arg-type]
        assert len(set(cases)) == count and len({emotion for _, emotion in cases}) >= least


def test_the_ablation_trains_again_with_other_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_shard_set(tmp_path / "data", [make_record(0, 12, clip_id="c", speaker="A", split="train")])
    clips = {"train": _clips(("M1", "W1")), "test": _clips(("M2",))}
    monkeypatch.setattr(ablation, "read_clips", lambda folders, split="train", quiet=True: clips[split])
    settings = CMetSettings(steps=2, connector=SMALL, sampling=Sampling(batch=4), speech="prosody")
    path = tmp_path / "out" / "losses" / "reconstruction" / "0" / "cmet.safetensors"
    times = []
    for changed in (settings, settings, replace(settings, rate=5e-3)):
        figures_of = ablation.run("losses", data, changed, [0], tmp_path / "out")
        times.append(path.stat().st_mtime_ns)
    assert times[0] == times[1] < times[2]
    assert list(figures_of) == ["reconstruction", "+ contrast", "+ contrast + direction"]
    assert checkpoints.trained_on(path)["data"] == {"main": "d" * 32}
    table = ablation.table_of(figures_of).splitlines()
    assert table[0].startswith("| | ") or table[0].startswith("|  | ")
    assert any(line.startswith("| + contrast + direction minus |") for line in table)
    # Where the evaluators are absent, `pictures` stops before the first training.
    with pytest.raises(MissingWeights, match="train evaluators"):
        ablation.run("losses", data, settings, [0], tmp_path / "pictures", pictures=1)
    assert not (tmp_path / "pictures").exists()
    clips["test"] = []
    with pytest.raises(UserError, match="held-out speakers"):
        ablation.run("losses", data, settings, [0], tmp_path / "none")
