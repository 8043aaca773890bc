"""Evaluators trained on a drawn corpus: repeatable bytes, the card, their inputs, the clips that they refuse."""

from __future__ import annotations

import itertools
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from cmet_eval.cli import build
from cmet_metrics.base import Labels, Sample
from cmet_pipelines.frames_codec import get_codec
from cmet_pipelines.records import IDENTITY_FIELDS
from cmet_pipelines.shard_files import describe, set_digests, to_table, write_shard
from cmet_pipelines.shards import CARD, CLIPS, SHARDS, ShardSet
from cmet_reference.evaluators import data
from cmet_reference.evaluators.emotion import fill_discriminant
from cmet_reference.evaluators.lip_sync import delayed, fit_syncnet, shift_figures
from cmet_reference.evaluators.train import EvaluatorSettings, train_evaluators
from cmet_reference.training.checkpoints import CARD_SEAL
from talking_face.faces.points68 import MEDIAPIPE_OF_IBUG68
from talking_face.pretrained import evaluator_networks, trained_evaluators
from talking_face.reasons import UserError
from talking_face.sealed import read_sealed_json, write_sealed_json, write_sealed_table
from talking_face.signature import canonical_json
from tests.metrics.by_key import by_key
from tests.models import models

T, SIZE = 30, 64
TINY = EvaluatorSettings(syncnet_steps=30, syncnet_clips=4, syncnet_frames=20)
KEYS = ("lse_c:corpus", "lse_d:corpus", "lse_offset:corpus", "ea:corpus", "emotion_leak:corpus")


def clip(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames of brows and a mouth that opens as the sound is loud, landmarks (only the eyes' are true), sound."""
    rng = np.random.default_rng(seed)
    loud = rng.uniform(0, 1, T)
    frames = np.full((T, SIZE, SIZE, 3), 120 + 10 * (seed % 5), np.uint8)
    for frame, wide in zip(frames, loud, strict=True):
        frame[42 : 44 + int(14 * wide), 24:40] = 20
        frame[4 + 5 * (seed % 3), 20:44] = 20  # brows, of one of three emotions
    landmarks = np.full((T, 478, 3), 30.0, np.float32)
    for points, x in ((range(36, 42), 22.0), (range(42, 48), 42.0)):
        landmarks[:, [MEDIAPIPE_OF_IBUG68[p] for p in points], :2] = x, 20.0
    level = np.repeat(200 + 9000 * loud, 640)
    return frames, landmarks, (level * rng.normal(0, 0.3, T * 640)).astype(np.int16)


def blendshapes(emotion: str, seed: int) -> np.ndarray:
    out = np.random.default_rng(seed).uniform(0, 0.2, (T, 52)).astype(np.float32)
    first = {"neutral": 0, "happy": 16, "sad": 32}[emotion]
    out[:, first : first + 10] += 0.6  # as an expression, it moves more than one
    return out


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six speakers of three emotions and one take; E and F are the test split, and one clip of A, not taken."""
    return write_shards(tmp_path_factory.mktemp("shards"), ("neutral", "happy", "sad"))


def write_shards(folder: Path, emotions: tuple[str, ...]) -> Path:
    records = []
    for seed, (speaker, emotion) in enumerate(itertools.product("ABCDEF", emotions)):
        frames, landmarks, audio = clip(seed)
        split = "test" if speaker in "EF" or (speaker, emotion) == ("A", "sad") else "train"
        record: dict[str, Any] = {field.name: None for field in IDENTITY_FIELDS} | {
            **{"clip_id": f"clips/{speaker}/{emotion}/1", "dataset": "clips", "speaker": speaker, "emotion": emotion},
            **{"split": split, "source": "x.mp4", "source_sha256": "0" * 64, "source_width": 64, "source_height": 64},
            **{"source_fps": 25.0, "fps": 25.0, "size": SIZE, "codec": "png", "n_frames": T, "n_valid": T},
            **{"valid_fraction": 1.0, "warnings": [], "clip_digest": "", "align": "box", "n_faces": 1},
            **{"face_choice": "only", "face_height": 40.0, "sharpness": 9.0, "brightness": 90.0, "black_frames": 0},
            **{"scene_cuts": [], "frames": get_codec("png").encode(frames), "landmarks": landmarks, "audio": audio},
            **{"landmarks_smoothed": landmarks, "blendshapes": blendshapes(emotion, seed)},
            **{"valid": np.ones(T, bool), "crop_transform": np.zeros((T, 2, 3), np.float32)},
        }
        set_digests(record)
        records.append(record)
    (folder / SHARDS).mkdir()
    shard = folder / SHARDS / "part.parquet"
    write_shard(shard, [to_table(record) for record in records])
    columns = {field.name: pa.array([r[field.name] for r in records], field.type) for field in IDENTITY_FIELDS}
    places = {"shard": ["part.parquet"] * len(records), "row_group": list(range(len(records)))}
    write_sealed_table(pa.table({**columns, **places}), folder / CLIPS)
    card = {"complete": True, "dataset": "clips", "digest": "d" * 32, "signature": "shards|version:test"}
    write_sealed_json(folder / CARD, {**card, "shards": {shard.name: describe(shard)}})
    return folder


@pytest.fixture(scope="module")
def cards(shards: Path) -> dict[Any, dict[str, Any]]:
    return train_evaluators(shards, settings=TINY, quiet=True)


@pytest.fixture
def found(shards: Path, cards: object, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the files, where the metrics find them."""
    monkeypatch.setenv("CMET_EVAL_WEIGHTS", str(shards / trained_evaluators.FOLDER))
    return shards / trained_evaluators.FOLDER


def sample(seed: int, emotion: str, name: str, reference_emotion: str = "sad") -> Sample:
    frames, landmarks, audio = clip(seed)
    out = Sample(frames, audio=audio, name=name, labels=Labels(emotion, reference_emotion))
    out.cached("mediapipe-mesh", lambda _: (landmarks, blendshapes(emotion, seed)))
    return out


def test_the_same_bytes_again_and_other_ones_by_another_seed(
    shards: Path, cards: dict[Any, Any], tmp_path: Path
) -> None:
    again = train_evaluators(shards, tmp_path / "again", TINY, quiet=True)
    other = train_evaluators(shards, tmp_path / "other", EvaluatorSettings(**{**TINY.__dict__, "seed": 1}), quiet=True)
    for kind, card in cards.items():
        assert again[kind]["sha256"] == card["sha256"] != other[kind]["sha256"]
        written = (tmp_path / "again" / trained_evaluators.FILES[kind]).read_bytes()
        assert written == (shards / trained_evaluators.FOLDER / trained_evaluators.FILES[kind]).read_bytes()


def test_training_lowers_the_loss_and_nothing_of_the_test_split_is_in_it(shards: Path, cards: dict[Any, Any]) -> None:
    opened = ShardSet(shards)
    train = data.load(opened, data.choose(opened.clips, True, 99, 0), "", quiet=True)
    losses = fit_syncnet(train, TINY).losses
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    for card in cards.values():
        assert card["training_speakers"] == list("ABCD") and card["held_out"]["speakers"] == list("EF")
        assert len(card["trained_on"]["clips"]) == len(card["trained_on"]["sounds"]) == 11
        assert {"clips/A/sad/1", "clips/E/sad/1"}.isdisjoint(card["trained_on"]["clips"])
        assert (card["trained_on"]["data"], card["trained_on"]["seed"]) == ("d" * 32, 0)
        assert card["trained_on"]["config"]["syncnet_steps"] == 30 and card["commit"]
        assert card["parameters"] < 1_000_000
    assert cards["emotion"]["held_out"]["accuracy"] == 1.0
    assert cards["syncnet"]["held_out"]["shifts"] == 6 * 21
    stored = read_sealed_json(shards / "evaluators" / "corpus_syncnet.json", "", seal=CARD_SEAL)
    assert stored == json.loads(canonical_json(cards["syncnet"]))


def test_one_emotion_trains_the_lip_sync_network_alone(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, ("neutral",))
    assert list(train_evaluators(folder, settings=TINY, quiet=True)) == ["syncnet"]
    assert sorted(p.name for p in (folder / "evaluators").iterdir()) == [
        "corpus_syncnet.json",
        "corpus_syncnet.safetensors",
    ]


def test_the_discriminant_by_hand() -> None:
    """Classes of centres 4 and 6 with variance 1: log odds of 2 (x - 5), however much one coordinate is shrunk.

    Two coordinates of the same numbers and shrink 1: the identity in place of the covariance, so both count in full.
    """
    import torch

    x = torch.tensor([[3.0], [5.0], [5.0], [7.0]], dtype=torch.float64)
    classes = torch.tensor([0, 0, 1, 1])
    at = torch.tensor([[5.0], [6.0], [3.0]])
    for wide, shrink, slope in ((1, 0.0, 2.0), (1, 0.5, 2.0), (2, 1.0, 4.0)):
        layer = torch.nn.Linear(wide, 2)
        fill_discriminant(layer, x.repeat(1, wide), classes, shrink)
        odds = layer(at.repeat(1, wide)).diff(dim=1)[:, 0]
        torch.testing.assert_close(odds, slope * (at[:, 0] - 5), atol=1e-4, rtol=1e-4)


def test_faces_are_taken_from_the_middles_of_stretches_with_a_face() -> None:
    _, landmarks, _ = clip(0)
    assert evaluator_networks.face_frames(landmarks).tolist() == [1, 5, 9, 13, 16, 20, 24, 28]
    landmarks[:28] = np.nan
    assert evaluator_networks.face_frames(landmarks).tolist() == [28] * 4 + [29] * 4
    seen = np.random.default_rng(0).integers(0, 255, (8, 128, 128), dtype=np.uint8)
    given = evaluator_networks.emotion_features(seen, np.concatenate([np.full((2, 52), 0.5), np.full((1, 52), np.nan)]))
    assert given.shape == (376,) and np.abs(given[:52]).max() < 1e-6 and np.isfinite(given).all()


def test_most_clips_is_a_balanced_draw(shards: Path) -> None:
    clips = ShardSet(shards).clips
    few = data.choose(clips, True, 8, 3)
    assert few == data.choose(clips, True, 8, 3) and len(few) == 8
    assert len(data.choose(clips, True, 99, 3)) == 11


def test_a_metric_scores_others_and_refuses_what_it_was_trained_on(found: Path) -> None:
    held_out = sample(12, "neutral", "clips/E/neutral/1")
    scores = {key: by_key(key).score(held_out, held_out) for key in KEYS}
    assert [scores[key].reason for key in KEYS] == [None] * 5
    assert scores["ea:corpus"].value == 1.0 and scores["ea:corpus"].stats["neutral>neutral"] == 1.0
    assert scores["emotion_leak:corpus"].value == 0.0
    assert scores["lse_offset:corpus"].value == abs(scores["lse_c:corpus"].stats["offset"])
    for key in KEYS:
        metric = by_key(key)
        # The generated video has a name of its own; its ground truth was trained on, by its id or by its sound.
        for seed, name in ((12, "clips/A/neutral/1"), (0, "renamed")):
            score = metric.score(held_out, sample(seed, "neutral", name))
            assert score.value is None and score.reason == "trained-on", (key, name)
    evaluator: trained_evaluators.Kind = "emotion" if key.startswith("e") else "syncnet"
    assert trained_evaluators.find(evaluator, files=models()).sha256[:8] in str(metric.signature())


def test_without_files_a_reason_and_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CMET_EVAL_WEIGHTS", raising=False)
    one = sample(12, "neutral", "clips/E/neutral/1")
    for key in KEYS:
        score = by_key(key).score(one, one)
        assert score.reason == "missing-weights" and "cmet-eval train evaluators" in score.detail
        assert "absent" in str(by_key(key).signature())


def test_a_pickle_a_damaged_and_a_swapped_file_are_refused(
    found: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CMET_EVAL_WEIGHTS", str(tmp_path))
    path = tmp_path / trained_evaluators.FILES["emotion"]
    good = (found / path.name).read_bytes()
    for bad in (pickle.dumps({"a": 1}), good[:200], (found / trained_evaluators.FILES["syncnet"]).read_bytes(), b""):
        path.write_bytes(bad)
        with pytest.raises(UserError, match=r"evaluator|version"):
            trained_evaluators.load_emotion(files=models())


def test_a_delay_of_the_sound_has_syncnets_sign() -> None:
    """A network that knows the truth: every frame and the sound under it carry the same number."""
    codes = np.random.default_rng(0).normal(size=(T + 40, 8)).astype(np.float32)

    class Knows:
        tag = "knows"

        def lip(self, crops: np.ndarray) -> np.ndarray:
            return codes[crops[: len(crops) - 4, 0, 0]]

        def sound(self, samples: np.ndarray, windows: int) -> np.ndarray:
            return codes[samples[::640][:windows]]

    samples = np.repeat(np.arange(1, T + 1, dtype=np.int16), 640)
    mouths = np.broadcast_to(np.arange(1, T + 1, dtype=np.uint8)[:, None, None], (T, 96, 96))
    e = data.Example("a", "A", None, mouths, samples, np.zeros((1, 13)), mouths, np.zeros((T, 52)), "")
    assert shift_figures(Knows(), [e])["offset_exact"] == 1.0
    assert delayed(samples, 2)[1280] == 1 and delayed(samples, -2)[0] == 3


def test_a_window_hears_and_sees_its_own_five_frames_only() -> None:
    import torch

    net = evaluator_networks.build_syncnet().eval()
    rng = np.random.default_rng(0)
    mouths, rows = rng.integers(0, 255, (1, 12, 96, 96), dtype=np.uint8), rng.normal(size=(1, 60, 13)).astype("f4")
    with torch.inference_mode():
        lip, sound = net.lips(torch.from_numpy(mouths)), net.sound(torch.from_numpy(rows))
        part = net.lips(torch.from_numpy(mouths[:, 3:8])), net.sound(torch.from_numpy(rows[:, 12:32]))
    assert lip.shape == (1, 8, 128) and sound.shape == (1, 11, 128)
    torch.testing.assert_close(part[0][0, 0], lip[0, 3], atol=1e-5, rtol=0)
    torch.testing.assert_close(part[1][0, 0], sound[0, 3], atol=1e-5, rtol=0)


def test_mouths_are_cut_from_the_place_the_eyes_give() -> None:
    """Eyes at a distance of 20 px at y 20: a square of 28 px around (32, 44), 96 px wide, for any head pose."""
    frames, landmarks, _ = clip(0)
    frames[:] = 0
    frames[:, 43:45, 31:33] = 255
    landmarks[3:5] = np.nan
    cut = evaluator_networks.mouth_crops(frames, landmarks)
    y, x = (np.average(np.arange(96) + 0.5, weights=cut.sum(axis=(0, axis))) for axis in (2, 1))
    assert (y, x) == (pytest.approx(48, abs=0.1), pytest.approx(48, abs=0.1)) and (cut[3] == cut[2]).all()
    turned = np.rot90(frames, axes=(1, 2)).copy()  # counter-clockwise: (x, y) to (y, 64 - x)
    points = np.stack([landmarks[..., 1], 64 - landmarks[..., 0], landmarks[..., 2]], axis=-1)
    assert np.abs(evaluator_networks.mouth_crops(turned, points).astype(int) - cut).max() <= 2


def test_the_command(shards: Path, tmp_path: Path) -> None:
    words = ["train", "evaluators", "--data", str(shards), "--out", str(tmp_path / "x"), "--steps", "3", "--quiet"]
    result = CliRunner().invoke(build("train"), words)
    assert result.exit_code == 0, result.output
    assert "syncnet: 5" in result.output and "2 other speakers" in result.output
    names = {"corpus_syncnet.safetensors", "corpus_syncnet.json", "corpus_emotion.safetensors", "corpus_emotion.json"}
    assert {path.name for path in (tmp_path / "x").iterdir()} == names
