"""CEM-Net's stages: training, checkpoints, settings, controls and ablations."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cmet_pipelines.shards import CARD
from cmet_reference.cem_net import (
    ablation,
    aee,
    aee_settings,
    aee_stage,
    audio2mouth,
    audio2mouth_stage,
    classifier,
    ebm,
    ebm_stage,
    train,
)
from cmet_reference.cem_net.audio2mouth import POINTS, Audio2Mouth
from cmet_reference.cem_net.data import mean_face
from cmet_reference.cem_net.generate import CemNetFace
from cmet_reference.cem_net.label_lookup import LabelLookupFace
from cmet_reference.clips import ClipArrays
from cmet_reference.training import checkpoints, config
from cmet_reference.training.options import TrainOptions
from talking_face.pretrained.store import MissingWeights
from talking_face.reasons import ClipError, UserError
from talking_face.sealed import read_sealed_json, write_sealed_json
from tests.cmet_eval.conftest import make_record, write_shard_set
from tests.cmet_reference.cem_net_parts import (
    AEE_SMALL,
    clips_of,
    faces,
    few_steps,
    small_aee,
    small_ebm,
)
from tests.cmet_reference.test_training import Line
from tests.models import models


def test_pairs_share_what_they_should():
    """Where two speakers say the same sentences, all eight combinations are real clips, their features as named."""
    settings = aee_stage.AeeSettings(1, 0, batch=4)
    stage = aee_stage.AeeStage(
        aee_settings.AeeNetSettings(**AEE_SMALL), settings, aee_settings.AeeLossWeights(), clips_of(), [], 0
    )
    batch = stage.batch(0)
    assert batch["known"].all()
    assert (batch["speaker"][:, 0] != batch["speaker"][:, 1]).all()
    assert (batch["emotion"][:, 0] != batch["emotion"][:, 1]).all()
    alone = aee_stage.AeeStage(
        aee_settings.AeeNetSettings(**AEE_SMALL), settings, aee_settings.AeeLossWeights(), clips_of("a"), [], 0
    ).batch(0)
    assert alone["known"].all() and (alone["speaker"] == 0).all()
    # The windows of the two clips are the corners (0, 0, 0) and (1, 1, 1).
    assert np.array_equal(batch["windows"][:, 0, 0], batch["corners"][:, 0, 0, 0])
    assert np.array_equal(batch["windows"][:, 1, 0], batch["corners"][:, 1, 1, 1])


def three_stages(folder: Path, seed: int) -> list[torch.nn.Module]:
    """A few steps of each, from settings as small as can be."""
    clips = clips_of()
    first = audio2mouth_stage.Audio2MouthStage(
        audio2mouth.Audio2MouthNetSettings(width=16, layers=1, heads=2, feed_forward=16),
        audio2mouth_stage.Audio2MouthSettings(2, batch=2, gain=3.0, bands=1),
        clips,
        clips,
        seed,
    )
    second = aee_stage.AeeStage(
        aee_settings.AeeNetSettings(**AEE_SMALL, manner=True),
        aee_stage.AeeSettings(1, 1, batch=2, mixing=1.0, shrink=0.2),
        aee_settings.AeeLossWeights(),
        clips,
        clips,
        seed,
    )
    nets = []
    for stage in (first, second):
        few_steps(stage, seed)
        checkpoints.save(folder / f"{stage.name}.safetensors", stage.net.state_dict(), stage.record())
        nets.append(stage.net.eval())
    mouths, encoder = audio2mouth.load(folder / "audio2mouth.safetensors"), aee.load(folder / "aee.safetensors")
    settings = ebm_stage.EbmSettings(2, batch=2, noise=0.5)
    own = ebm.EbmNetSettings(slots=4, width=8, hidden=8, picture_emotion=4, decision=100.0, neutral=True)
    third = ebm_stage.EbmStage(
        own,
        settings,
        ebm.EbmLossWeights(),
        ebm_stage.FixedNetworks(mouths, encoder, files=models()),
        clips,
        clips,
        seed,
    )
    few_steps(third, seed)
    assert third.held_out()["error_still"] > 0
    checkpoints.save(folder / "ebm.safetensors", third.net.state_dict(), third.record())
    return [*nets, third.net]


class LoudIsHappy(torch.nn.Module):
    """Replaces AEE: a loud clip is happy."""

    size = 2

    def probabilities(self, audio: np.ndarray) -> np.ndarray:
        happy = np.abs(audio).mean() > 1000
        return np.array([1 - happy, happy], np.float32)

    emotion = probabilities


def smiling(clips: list[ClipArrays]) -> list[ClipArrays]:
    """The happy clips are loud, their lips and jaw are 6 % of the eye distance lower, and a blendshape shows it."""
    out = []
    for clip in clips:
        happy = float(clip.emotion == "happy")
        landmarks, shapes = clip.landmarks.copy(), clip.blendshapes.copy()
        landmarks[:, POINTS, 1] = 138 + np.abs(landmarks[:, POINTS, 1] - 128) + 6 * happy  # below the eyes
        shapes[:, 0] = 0.8 * happy
        audio = (clip.audio * (0.1 + 0.9 * happy)).astype(np.int16)
        out.append(replace(clip, landmarks=landmarks, blendshapes=shapes, audio=audio))
    return out


OURS = {"table": True, "spread": True, "neutral": True, "decision": 0.5}


@pytest.mark.parametrize(("net", "steps"), [({}, 300), (OURS, 40)])
def test_a_trained_memory_is_nearer_to_the_truth_than_no_memory(net, steps):
    """On a speaker who was not used in training. The paper's parts alone need more steps than with ours."""
    clips = smiling(clips_of("abcd"))
    sizes = audio2mouth.Audio2MouthNetSettings(width=16, layers=1, heads=2, feed_forward=16)
    mouths = Audio2Mouth(sizes, mean_face(clips), 0.02).eval()
    for layer in (mouths.jaw, mouths.lips):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    stage = ebm_stage.EbmStage(
        ebm.EbmNetSettings(slots=8, width=16, hidden=32, picture_emotion=4, **net),
        ebm_stage.EbmSettings(steps, batch=16),
        ebm.EbmLossWeights(continuity=0.0),
        ebm_stage.FixedNetworks(mouths, LoudIsHappy(), files=models()),
        [c for c in clips if c.speaker != "d"],
        [c for c in clips if c.speaker == "d"],
        seed=0,
    )
    few_steps(stage, 0, rate=5e-3)
    stage.net.eval()
    found = stage.held_out()
    assert found["mouth"] < 0.6 * min(found["mouth_without"], found["mouth_still"])
    assert found["direction"] > 0.5


def test_same_seed_same_weights_and_a_face_from_the_files(tmp_path: Path):
    one, two, other = (three_stages(tmp_path, seed) for seed in (0, 0, 1))
    for a, b, c in zip(one, two, other, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
        assert any(not torch.equal(x, y) for x, y in zip(a.parameters(), c.parameters(), strict=True))
    clips = clips_of()
    face, plain = CemNetFace(tmp_path, files=models()), CemNetFace(tmp_path, memory=False, files=models())
    given = clips[0].audio, clips[1].landmarks[:3], clips[2].landmarks
    made = face.landmarks(*given, 20, reference_blendshapes=clips[1].blendshapes[:3])
    without = plain.landmarks(*given, 20)
    with pytest.raises(ValueError, match="reference_frames"):
        face.landmarks(*given, 20)
    assert made.shape == without.shape == (20, 478, 3) and np.isfinite(made).all()
    assert face.revision != plain.revision
    # Without the memory the upper face is the references' but for the eyes, in the source's pose.
    nose = [4, 6, 197]
    assert np.abs(without[:, nose] - clips[1].landmarks[:3].mean(axis=0)[nose]).max() < 12


def test_label_lookup_adds_the_mean_displacement_of_the_label(tmp_path: Path):
    three_stages(tmp_path, 0)
    clips = clips_of()
    face = LabelLookupFace(tmp_path, files=models())
    rest, lips = torch.randn(1, 478, 3), torch.randn(1, 4, 57, 3)
    key = {"blendshapes": torch.randn(1, 52)}
    made = {}
    for label in face.emotions:
        face.label = label
        made[label] = face.expressive(rest, lips, key)
    for k, label in enumerate(face.emotions):
        start = face.memory.start(rest, lips, key["blendshapes"])[0].detach().numpy()
        shown = face.memory.shown[k].reshape(478, 3).numpy() * face.memory.moves[:, None].numpy()
        assert np.allclose(made[label] - start, shown[None], atol=1e-5)
    # The table is the mean of the training split: happy minus the same person's neutral face, in the head's frame.
    assert face.emotions == ("neutral", "happy") and float(face.memory.shown[1].abs().sum()) > 0
    given = clips[0].audio, clips[1].landmarks[:3], clips[2].landmarks, 20
    drawn = face.landmarks(*given, reference_blendshapes=clips[1].blendshapes[:3])
    assert drawn.shape == (20, 478, 3) and np.isfinite(drawn).all()
    face.label = "sarcastic"
    with pytest.raises(ClipError, match="the training split has no sarcastic; it has neutral, happy"):
        face.landmarks(*given, reference_blendshapes=clips[1].blendshapes[:3])


def test_files_of_an_earlier_version_say_what_to_run(tmp_path):
    net = small_aee()
    path = tmp_path / "aee.safetensors"
    text = "was trained by an earlier version; train again: `cmet-eval train cem-net --stage aee --data SHARDS --fresh`"
    state, record = net.state_dict(), net.record()
    fewer = dict(list(state.items())[1:])
    no_labels = {"settings": record["settings"]}
    other_field = {**record, "settings": {**record["settings"], "gone": 1}}
    for tensors, header in ((fewer, record), (state, no_labels), (state, other_field)):
        checkpoints.save(path, tensors, header)
        with pytest.raises(UserError, match=re.escape(text)):
            aee.load(path)
    checkpoints.save(path, state, record)
    assert aee.load(path).settings == net.settings


@pytest.mark.parametrize("name", ["demo", "adapted", "paper"])
def test_settings_of_the_package(name):
    settings = config.load("cmet_reference.cem_net", name)
    for stage in train.STAGES:
        if stage != "renderer" and stage in settings:  # flow_stage.make_stage reads its own
            assert train.stage_settings(settings, stage), stage
    factories = train.stages(settings, {"main": Path()}, Path(), TrainOptions(quiet=True), models())
    made = [stage for stage, factory in zip(train.STAGES, factories, strict=True) if factory is not None]
    assert made == [stage for stage in train.STAGES if stage in settings]
    with pytest.raises(UserError, match="aee"):
        train.stage_settings({"aee": {"nonsense": 1}}, "aee")


def test_the_ablation_trains_again_with_other_data_or_settings_and_says_first_what_it_lacks(tmp_path, monkeypatch):
    def shards(name, split):
        folder = write_shard_set(tmp_path / name, [make_record(0, 12, clip_id="c", speaker="A", split=split)])
        write_sealed_json(folder / CARD, {**read_sealed_json(folder / CARD, ""), "digest": name * 32})
        return folder

    def made(data, rate=0.01):
        settings = {"line": {"rate": rate}}
        ablation.Ablation(data, settings, tmp_path / "out").train(lambda: Line(2), settings, tmp_path / "out", 0)
        return (tmp_path / "out" / "line.safetensors").stat().st_mtime_ns

    a, b = shards("a", "train"), shards("b", "test")
    first = made(a)
    assert made(a) == first
    second = made(b)
    assert second > first and made(b, 0.02) > second
    settings = config.load("cmet_reference.cem_net", "demo")
    with pytest.raises(UserError, match="no test split"):
        ablation.run(a, settings, [0], tmp_path / "out")
    monkeypatch.delenv("CMET_EVAL_WEIGHTS", raising=False)
    with pytest.raises(MissingWeights, match="train evaluators"):
        ablation.run(b, settings, [0], tmp_path / "out", pictures=1)


def test_the_plain_classifier_gives_logits_and_stands_in_for_aee(tmp_path: Path):
    """Its embedding is its output without softmax; it has no other networks; a memory is trained with it."""
    clips = clips_of()
    net = aee_settings.AeeNetSettings(**AEE_SMALL)
    stage = classifier.ClassifierStage(net, aee_stage.AeeSettings(1, 2, batch=4), clips, clips, 0)
    assert stage.steps == 3 and set(stage.batch(2)) == {"windows", "emotion", "emotion_windows"}
    _, parts = stage.loss({k: torch.from_numpy(v) for k, v in stage.batch(2).items()}, "net")
    assert set(parts) == {"emotion"}
    owned = {name.split(".")[0] for name, _ in stage.net.named_parameters()}
    assert owned == {"emotion_encoder", "to_emotion"}
    few_steps(stage, 0)
    checkpoints.save(tmp_path / "emotion-classifier.safetensors", stage.net.state_dict(), stage.record())
    found = classifier.load("emotion-classifier", tmp_path)
    audio = clips[0].audio
    logits = found.emotion(audio)
    assert logits.shape == (2,) == (found.size,)
    assert np.allclose(np.exp(logits) / np.exp(logits).sum(), found.probabilities(audio), atol=1e-6)
    hidden = torch.from_numpy(aee.AEE.emotion(found, audio))
    assert np.allclose(found.to_emotion(hidden).detach().numpy(), logits, atol=1e-6)
    three_stages(tmp_path, 0)
    chosen = ebm.EbmNetSettings(slots=4, width=8, hidden=8, picture_emotion=4, audio="emotion-classifier")
    fixed = ebm_stage.FixedNetworks(audio2mouth.load(tmp_path / "audio2mouth.safetensors"), found, files=models())
    memory = ebm_stage.EbmStage(chosen, ebm_stage.EbmSettings(1, batch=2), ebm.EbmLossWeights(), fixed, clips, clips, 0)
    assert memory.net.settings.audio_emotion == 2 and np.allclose(memory.pairs[0].audio_emotion, found.emotion(
        memory.pairs[0].face.clip.audio
    ))  # fmt: skip
    checkpoints.save(tmp_path / "ebm.safetensors", memory.net.state_dict(), memory.record())
    face = CemNetFace(tmp_path, files=models())
    assert isinstance(face.encoder, classifier.EmotionClassifier)


def test_without_a_memory_the_feature_is_decoded_and_the_decoder_learns():
    net, batch = small_ebm(memory=False), faces()
    assert not len(net.keys) and not len(net.values) and not list(net.added.parameters())
    value, parts = ebm.loss(net, batch, ebm.EbmLossWeights())
    assert set(parts) == {"landmarks", "picture"}
    value.backward()
    for name in ("decoder", "key", "lips", "feeling"):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in getattr(net, name).parameters()), name
    query = torch.randn(3, 5, 8)
    assert net.read(query) is query
    kept = small_ebm()
    weights = torch.nn.functional.normalize(query, dim=-1) @ torch.nn.functional.normalize(kept.keys, dim=-1).T
    expected = (weights / kept.settings.temperature).softmax(dim=-1) @ kept.values
    assert torch.allclose(kept.read(query), expected, atol=1e-5)


def test_the_rows_of_table_iv_remove_what_the_paper_removes():
    settings = config.load("cmet_reference.cem_net", "demo")
    nets = {}
    for row, changes in ablation.ROWS.items():
        changed = {**settings, "ebm": {**settings["ebm"], "net": {**settings["ebm"]["net"], **changes}}}
        nets[row] = train.stage_settings(changed, "ebm")[0]
        made = dict(
            zip(
                train.STAGES,
                train.stages(changed, {"main": Path()}, Path(), TrainOptions(quiet=True), models()),
                strict=True,
            )
        )
        assert (made["emotion-classifier"] is not None) == (row == "without AEE")
    assert nets["without AEE"] == replace(nets["full"], audio="emotion-classifier")
    assert nets["without EBM"] == replace(nets["full"], memory=False, table=False)


def test_table_of_the_ablation():
    """Student's t for two seeds is 12.706: the half width of the interval of 4 and 5 is 12.706 * 0.7071 / 1.4142."""
    found = {
        "full": {"M-LMD": [4.0, 5.0], "all points": [2.0, 2.0], "emotion": [0.25, 0.35]},
        "without AEE": {"M-LMD": [5.0, 6.5], "all points": [2.0, 2.0], "emotion": [0.25, 0.25]},
    }
    lines = ablation.table_of(found).splitlines()
    assert lines[2] == "| full | 4.50 ± 6.35 | 2.00 ± 0.00 | 0.300 ± 0.635 |"
    assert (
        lines[5].startswith("| full minus |")
        and lines[7] == "| without AEE | -1.25 ± 3.18 | 0.00 ± 0.00 | 0.050 ± 0.635 |"
    )
    alone = {row: {name: values[:1] for name, values in cells.items()} for row, cells in found.items()}
    assert ablation.table_of(alone).splitlines()[2] == "| full | 4.00 | 2.00 | 0.250 |"
