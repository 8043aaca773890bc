"""Faces on real people: small ones are found, gaps are bridged and flagged, crops map back to source pixels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

from talking_face.faces.crop import CropBox, apply_transform, crop_picture, invert, stable_box
from talking_face.faces.find import find_face
from talking_face.faces.track import FaceTrack, jitter, smooth_landmarks, track_face
from talking_face.media import ArrayPicture, read_frames
from tests.models import models


@pytest.fixture(scope="module")
def frames(real_clips: list[Path]) -> np.ndarray:
    return read_frames(real_clips[0])[:30]


def _track(frames: Iterable[np.ndarray]) -> FaceTrack:
    return track_face(map(ArrayPicture, frames), files=models())


def _on_canvas(frame: np.ndarray, face_px: int, face_height: int = 150) -> np.ndarray:
    """The picture shrunk until its face is `face_px` high, away from the centre of a 1280x720 picture."""
    scale = face_px / face_height
    small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    canvas = np.full((720, 1280, 3), 90, np.uint8)
    canvas[80 : 80 + small.shape[0], 820 : 820 + small.shape[1]] = small
    return canvas


@pytest.mark.parametrize("face_px", [180, 110, 70])
def test_small_faces_are_tracked(frames: np.ndarray, face_px: int) -> None:
    track = _track([_on_canvas(f, face_px) for f in frames[:8]])
    assert track.valid.all()
    assert track.landmarks[..., 0].min() > 820 and track.landmarks[..., 1].max() < 420


def test_no_face_gives_no_landmarks() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (6, 240, 320, 3)).astype(np.uint8)
    track = _track(noise)
    assert not track.valid.any() and np.isnan(track.landmarks).all()
    assert find_face(ArrayPicture(noise[0]), files=models()) is None


def test_a_gap_is_flagged_in_raw_and_bridged_in_smooth(frames: np.ndarray) -> None:
    broken = frames.copy()
    broken[10:13] = 0
    track = _track(broken)
    assert not track.valid[10:13].any() and track.valid[:10].all() and track.valid[16:].all()
    smooth = smooth_landmarks(track.landmarks, track.valid)
    assert np.isfinite(smooth[10:13]).all()
    whole = _track(frames)
    assert np.abs(smooth[11] - whole.landmarks[11])[:, :2].mean() < 3.0
    assert jitter(smooth, track.valid) < jitter(track.landmarks, track.valid)


def test_a_track_does_not_depend_on_what_was_tracked_before(frames: np.ndarray) -> None:
    first = _track(frames[:6])
    _track(frames[::-1][:6])
    again = _track(frames[:6])
    assert np.array_equal(first.landmarks, again.landmarks)


def test_crop_holds_the_face_and_maps_back(frames: np.ndarray) -> None:
    track = _track(frames)
    box = stable_box(track.landmarks, track.valid, picture=track.size)
    transform = box.transform(256)
    points = apply_transform(transform, track.landmarks)
    assert points[..., :2].min() > 0 and points[..., :2].max() < 256
    back = apply_transform(invert(transform), points)
    assert np.abs(back[..., :2] - track.landmarks[..., :2]).max() < 1e-2
    # The crop shows what the transform says: warp the same square independently.
    warped = cv2.warpAffine(
        frames[0],
        np.array([[256 / box.side, 0, -box.left * 256 / box.side], [0, 256 / box.side, -box.top * 256 / box.side]])
        + np.array([[0, 0, 0.5 * 256 / box.side - 0.5]] * 2),
        (256, 256),
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )
    difference = np.abs(warped.astype(int) - crop_picture(ArrayPicture(frames[0]), box, 256))[8:-8, 8:-8]
    assert difference.mean() < 1.0


@pytest.mark.parametrize(
    "box", [CropBox(-20, -30, 100), CropBox(50, 60, 120), CropBox(-5, -5, 400), CropBox(90, 10, 9)]
)
def test_a_crop_beyond_the_picture_is_continued_by_its_edges(box: CropBox) -> None:
    gradient = np.mgrid[0:96, 0:128].sum(0)[..., None].repeat(3, 2).astype(np.uint8)
    crop = crop_picture(ArrayPicture(gradient), box, 64)
    assert crop.shape == (64, 64, 3) and crop.flags.c_contiguous
    assert crop.min() >= gradient.min() and crop.max() <= gradient.max()
