"""Measured doubts on real clips that were cut, joined and damaged; and the align modes in a record."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cmet_pipelines import quality
from cmet_pipelines.process_clip import process_clip
from cmet_pipelines.processing import ProcessingSettings
from cmet_pipelines.records import ClipRecord
from talking_face.clip import Clip, MediaSource
from talking_face.faces.align import ALIGN_MODES
from talking_face.faces.crop import apply_transform, invert
from talking_face.media import ArrayPicture, read_audio, read_frames, write_video
from tests.models import models


@pytest.fixture(scope="module")
def people(real_clips: list[Path]) -> list[np.ndarray]:
    return [read_frames(clip)[:40] for clip in real_clips[:6]]


def _small(frames: np.ndarray) -> np.ndarray:
    return np.stack([ArrayPicture(frame).thumbnail(*quality.THUMBNAIL) for frame in frames])


def _record(path: Path, frames: np.ndarray, sound: np.ndarray | None = None, **settings: Any) -> ClipRecord:
    sound = np.zeros(len(frames) * 640, np.int16) if sound is None else sound
    write_video(path, frames, 25.0, sound, 16000)
    clip = Clip(clip_id="x/1", dataset="x", speaker="a", video=MediaSource(str(path)))
    return process_clip(clip, ProcessingSettings(**settings), str(path.parent), files=models())


def test_cuts_where_clips_are_joined_and_nowhere_else(people: list[np.ndarray]) -> None:
    small = [_small(frames) for frames in people]
    assert [quality.scene_cuts(one) for one in small] == [[]] * len(small)
    for a, b in itertools.permutations(small, 2):
        assert quality.scene_cuts(np.concatenate([a[:15], b[20:]])) == [15]
    a, b, c = small[:3]
    assert quality.scene_cuts(np.concatenate([a[:12], b[:4], c[:12]])) == [12, 16]
    # Repeated pictures, as in a clip of 12 frames/s at 25, do not count as usual change.
    assert quality.scene_cuts(np.repeat(a, 2, axis=0)) == []
    # Neither a flash nor a dissolve is a cut; black between two shots is, once.
    flash = a.copy()
    flash[9:11] = 250
    assert quality.scene_cuts(flash) == []
    mix = np.linspace(0, 1, 20)[:, None, None]
    assert (
        quality.scene_cuts(np.concatenate([a[:20], (a[20:] * (1 - mix) + b[:20] * mix).astype(np.uint8), b[20:]])) == []
    )
    black = np.zeros((4, *a.shape[1:]), np.uint8)
    assert quality.scene_cuts(np.concatenate([a[:10], black, a[10:]])) == []
    assert quality.scene_cuts(np.concatenate([a[:10], black, b[10:]])) == [14]
    assert quality.scene_cuts(black) == [] and quality.scene_cuts(a[:1]) == []
    assert quality.black_frames(np.concatenate([a[:2], black + 20])).tolist() == [False] * 2 + [True] * 4


def test_doubt_begins_at_cuts_jumps_and_long_absences() -> None:
    points = np.random.default_rng(0).normal(size=(1, 478, 2)) * 20 + 100
    landmarks = np.repeat(points, 40, axis=0)
    valid = np.ones(40, bool)
    assert quality.doubtful_frames(landmarks, valid, []) == [] and quality.identity_samples(valid, []) == []
    landmarks[20:, :, 0] += 200
    valid[[5, 6]] = False
    valid[28:36] = False
    starts = quality.doubtful_frames(landmarks, valid, [10])
    assert starts == [10, 20, 36]
    assert quality.identity_samples(valid, starts) == [4, 15, 24, 38]
    assert len(quality.identity_samples(np.ones(40, bool), range(2, 40, 2))) == quality.IDENTITY_SAMPLES


def test_sharpness_and_brightness_follow_the_picture(people: list[np.ndarray]) -> None:
    crop = people[0][0]
    sharp, bright = quality.sharpness_and_brightness(crop)
    blurred, same = quality.sharpness_and_brightness(cv2.GaussianBlur(crop, (0, 0), 2))
    assert blurred < 0.3 * sharp and abs(same - bright) < 1
    assert quality.sharpness_and_brightness(crop // 2)[1] < 0.6 * bright


def test_another_person_in_mid_clip_is_recorded_not_dropped(people: list[np.ndarray], tmp_path: Path) -> None:
    a, b = people[0], people[2]
    changed = _record(tmp_path / "a.mp4", np.concatenate([a[:15], np.zeros((2, *a.shape[1:]), np.uint8), b[:15]]))
    assert changed["scene_cuts"] == [17] and changed["black_frames"] == 2
    assert changed["identity_distance"] > quality.SAME_PERSON
    assert any(w.startswith("another-face") for w in changed["warnings"]) and "scene-cuts-1" in changed["warnings"]
    # The same person at another place in the picture is compared, and recognised.
    moved = np.concatenate([a[:12], np.roll(a[12:24], 110, axis=2)])
    same = _record(tmp_path / "b.mp4", moved)
    assert same["scene_cuts"] == [12] and same["identity_distance"] < 0.45
    assert not any(w.startswith("another-face") for w in same["warnings"])


def test_an_undisturbed_clip_has_figures_and_no_comparison(people: list[np.ndarray], tmp_path: Path) -> None:
    plain = _record(tmp_path / "a.mp4", people[1][:10])
    assert plain["identity_distance"] is None and plain["scene_cuts"] == []
    assert plain["warnings"] == ["nearly-silent-level-0"]  # the clip has a sound of zeros
    assert (plain["n_faces"], plain["face_choice"], plain["face_margin"]) == (1, "only", None)
    assert 120 < plain["face_height"] < 160 and plain["sharpness"] > 50 and 60 < plain["brightness"] < 180


@pytest.mark.parametrize("name", [name for name in ALIGN_MODES if name not in ("box", "none")])
def test_align_modes_in_a_record(name: str, people: list[np.ndarray], tmp_path: Path) -> None:
    record = _record(tmp_path / "a.mp4", people[3][:6], align=name, codec="png")
    size = ALIGN_MODES[name].size or 256
    assert record["align"] == name and record["size"] == size and len(record["frames"]) == 6
    transform = record["crop_transform"]
    assert transform.shape == (6, 2, 3) and (name == "syncnet-224" or not np.array_equal(transform[0], transform[5]))
    # Landmarks are inside the crop, the smoothed ones near them, and they map back to the face.
    points = record["landmarks"][..., :2]
    assert (points[:, 13] > 0).all() and (points[:, 13] < size).all()
    assert np.abs(points - record["landmarks_smoothed"][..., :2]).mean() < 0.01 * size
    back = np.stack([apply_transform(invert(t)[None], p[None])[0] for t, p in zip(transform, points, strict=True)])
    assert abs(np.ptp(back[..., 1], axis=1).mean() - record["face_height"]) < 2
    # The crop's middle shows what the source shows there.
    crop = cv2.imdecode(np.frombuffer(record["frames"][2], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    source = read_frames(tmp_path / "a.mp4")[2]
    x, y = apply_transform(invert(transform[2])[None], np.array([[[size / 2, size / 2]]]))[0, 0].round().astype(int)
    middle = slice(size // 2 - 3, size // 2 + 3)
    assert np.abs(crop[middle, middle].mean((0, 1)) - source[y - 2 : y + 2, x - 2 : x + 2].mean((0, 1))).max() < 12


def test_the_speaker_of_two_is_what_a_record_holds(real_clips: list[Path], tmp_path: Path) -> None:
    speaker, other = read_frames(real_clips[4])[:60], read_frames(real_clips[7])[:60]
    sound = read_audio(real_clips[4])[: 60 * 640]
    record = _record(tmp_path / "a.mp4", np.concatenate([other, speaker], axis=2), sound)
    assert (record["n_faces"], record["face_choice"]) == (2, "speaking") and record["face_margin"] > 0
    left = (0 - record["crop_transform"][0, 0, 2]) / record["crop_transform"][0, 0, 0]
    assert left > other.shape[2] * 0.8
