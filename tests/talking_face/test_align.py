"""Align modes equal the codes that they are named after, and each maps back to source pixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.transform import SimilarityTransform

from talking_face.faces.align import (
    ALIGN_MODES,
    ARCFACE_POINTS,
    IP_LAP_POINTS,
    align_mode,
    cut,
    find_dlib68,
    region_of,
    source_region,
    transforms,
)
from talking_face.faces.crop import apply_transform, invert
from talking_face.faces.points68 import MEDIAPIPE_OF_IBUG68
from talking_face.faces.track import FaceTrack, track_face
from talking_face.media import ArrayPicture, read_frames
from tests.models import models

SIZE, ENLARGE = 256, 1.5
MP_MODES = [name for name, mode in ALIGN_MODES.items() if mode.points == "mp478" and not mode.whole]


@pytest.fixture(scope="module")
def frames(real_clips: list[Path]) -> np.ndarray:
    return read_frames(real_clips[0])[:16]


@pytest.fixture(scope="module")
def track(frames: np.ndarray) -> FaceTrack:
    return track_face((ArrayPicture(frame) for frame in frames), files=models())


def _transforms(name: str, track: FaceTrack) -> np.ndarray:
    return transforms(align_mode(name), track.landmarks, track.valid, track.size, SIZE, ENLARGE)


def _size(name: str) -> int:
    return ALIGN_MODES[name].size or SIZE


@pytest.mark.parametrize("name", MP_MODES)
def test_a_crop_maps_back_to_source_pixels(name: str, frames: np.ndarray, track: FaceTrack) -> None:
    """A picture whose colours are its own coordinates is cut, and each crop pixel names where it came from."""
    size, transform = _size(name), _transforms(name, track)[5].astype(np.float32)  # as stored
    corners = apply_transform(invert(transform)[None], np.array([[[0, 0], [size, 0], [0, size], [size, size]]]))[0]
    low, span = corners.min(axis=0), np.ptp(corners, axis=0)
    y, x = np.mgrid[: frames.shape[1], : frames.shape[2]] + 0.5
    ramp = np.stack([(x - low[0]) / span[0], (y - low[1]) / span[1], 0 * x], axis=-1) * 255
    crop = cut(align_mode(name), ArrayPicture(np.clip(np.rint(ramp), 0, 255).astype(np.uint8)), transform, size)
    assert crop.shape == (size, size, 3) and crop.flags.c_contiguous
    inner = np.mgrid[8 : size - 8, 8 : size - 8].reshape(2, -1).T[:, ::-1]
    source = apply_transform(invert(transform)[None], inner[None] + 0.5)[0]
    inside = ((source > 2) & (source < np.array(track.size[::-1]) - 2)).all(axis=1)
    told = crop[inner[inside, 1], inner[inside, 0], :2] / 255 * span + low
    error = told - source[inside]
    pixel = span / 255  # source px that one level stands for
    truncated = 0.5 if name.startswith("eat") else 0.0
    assert inside.mean() > 0.7 and (np.abs(error.mean(axis=0) / pixel + truncated) < 0.15).all()
    assert (np.abs(error) < 1.7 * pixel).all()


def test_the_mode_none_returns_every_pixel_of_a_picture_of_any_size(frames: np.ndarray, track: FaceTrack) -> None:
    mode = align_mode("none")
    placed = transforms(mode, track.landmarks, track.valid, track.size, SIZE, ENLARGE)
    assert np.array_equal(placed, np.repeat(np.eye(2, 3)[None], len(frames), axis=0))
    for picture in (frames[0], frames[0, :101, :77]):
        assert np.array_equal(cut(mode, ArrayPicture(picture), placed[0], SIZE), picture)
        assert region_of(mode, placed[0], SIZE, picture.shape[:2]) == (0, 0, picture.shape[1], picture.shape[0])


@pytest.mark.parametrize("name", MP_MODES)
def test_a_part_of_the_picture_gives_the_same_crop(name: str, frames: np.ndarray, track: FaceTrack) -> None:
    mode, size, transform = align_mode(name), _size(name), _transforms(name, track)[3]
    left, top, right, bottom = region_of(mode, transform, size, track.size)
    assert left % 2 == top % 2 == 0
    part = ArrayPicture(frames[3, top:bottom, left:right])
    assert np.array_equal(
        cut(mode, ArrayPicture(frames[3]), transform, size), cut(mode, part, transform, size, (left, top))
    )


def test_frames_without_a_face_are_placed_between_their_neighbours(track: FaceTrack) -> None:
    valid, points = track.valid.copy(), track.landmarks.copy()
    valid[[0, 1, 6, 15]] = False
    points[~valid] = np.nan
    for name in MP_MODES:
        placed = transforms(align_mode(name), points, valid, track.size, SIZE, ENLARGE)
        assert placed.shape == (16, 2, 3) and np.isfinite(placed).all()
        if name not in ("box", "syncnet-224"):
            assert np.array_equal(placed[0], placed[2]) and np.array_equal(placed[15], placed[14])
            middle = (placed[5] + placed[7]) / 2
            assert np.abs(placed[6] - middle).max() < 0.02 * SIZE
    with pytest.raises(ValueError, match="no valid frame"):
        transforms(align_mode("ffhq"), points, np.zeros(16, bool), track.size, SIZE, ENLARGE)


def test_arcface_equals_insightface(frames: np.ndarray) -> None:
    face_align = pytest.importorskip("insightface.utils.face_align")
    for seed in range(5):
        rng = np.random.default_rng(seed)
        five = (ARCFACE_POINTS * 1.4 + [110, 90] + rng.normal(0, 6, (5, 2))).astype(np.float32)
        points = np.zeros((1, 68, 2), np.float32)
        for index, point in zip((slice(36, 42), slice(42, 48), 30, 48, 54), five, strict=True):
            points[0, index] = point + 0.5  # insightface's pixels have their centres at whole numbers
        mode = align_mode("arcface-112")
        transform = transforms(mode, points, np.ones(1, bool), (288, 360), 112, 1.0)[0]
        estimate = SimilarityTransform.from_estimate(five, ARCFACE_POINTS).params[:2]
        assert (
            np.abs(
                apply_transform(transform[None], five[None] + 0.5) - 0.5 - (five @ estimate[:, :2].T + estimate[:, 2])
            ).max()
            < 1e-4
        )
        theirs = face_align.norm_crop(frames[0], five)
        ours = cut(mode, ArrayPicture(frames[0]), transform, 112)
        assert np.abs(ours.astype(int) - theirs).max() <= 1 and (ours != theirs).mean() < 0.001


def test_eat_equals_the_scoring_alignment_on_dlibs_points(real_clips: list[Path]) -> None:
    from cmet_metrics.eat_align import align
    from talking_face.pretrained.model_files import ModelFiles

    mode = align_mode("eat-128")
    for clip in real_clips[:2]:
        frame = read_frames(clip)[10]
        found = find_dlib68(frame, files=models())
        theirs = align(frame, ModelFiles())
        assert found is not None and theirs is not None and mode.points == "dlib68"
        transform = transforms(mode, found[None], np.ones(1, bool), frame.shape[:2], 128, 1.0)[0]
        difference = np.abs(cut(mode, ArrayPicture(frame), transform, 128).astype(int) - theirs)
        assert difference.max() <= 1 and difference.mean() < 0.1  # cut to whole levels after another rounding


def test_ffhq_quad() -> None:
    """Worked by hand from download_ffhq.py: half side max(2 * 60, 1.8 * 70) = 126 around (130, 100 + 0.1 * 70)."""
    points = np.zeros((1, 68, 2))
    points[0, 36:42], points[0, 42:48] = (100, 100), (160, 100)
    points[0, 48], points[0, 54] = (110, 170), (150, 170)
    one = np.ones(1, bool)
    mode = align_mode("ffhq")
    upright = transforms(mode, points, one, (400, 400), 252, 1.0)[0]
    assert np.allclose(upright, [[1, 0, -4], [0, 1, 19]])
    # A turned head gives the same crop.
    turn = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    turned = transforms(mode, points @ turn.T + [50, -20], one, (400, 400), 252, 1.0)[0]
    assert np.allclose(
        apply_transform(turned[None], points @ turn.T + [50, -20]), apply_transform(upright[None], points), atol=1e-3
    )


def test_ip_lap_is_the_extent_of_its_points_and_five_pixels(frames: np.ndarray, track: FaceTrack) -> None:
    assert len(IP_LAP_POINTS) == len(set(IP_LAP_POINTS)) == 131
    crop = cut(align_mode("ip-lap-128-mp"), ArrayPicture(frames[2]), _transforms("ip-lap-128-mp", track)[2], 128)
    used = track.landmarks[2, list(IP_LAP_POINTS), :2]
    (x0, y0), (x1, y1) = (used.min(axis=0) - 5).astype(int), (used.max(axis=0) + 5).astype(int)
    assert np.array_equal(crop, cv2.resize(frames[2, y0:y1, x0:x1], (128, 128)))
    at_edge = track.landmarks - [x0 + 20, y0 + 20, 0]
    clipped = transforms(align_mode("ip-lap-128-mp"), at_edge, track.valid, track.size, 128, 1.0)[2]
    assert clipped[0, 2] == clipped[1, 2] == 0


def test_syncnet_crop(frames: np.ndarray, track: FaceTrack) -> None:
    """run_pipeline.py's steps on a moving face that leaves the picture: pad with 110, cut, resize."""
    points = track.landmarks.copy()
    points[..., 0] += np.linspace(0, 120, 16)[:, None]
    low, high = points[..., :2].min(axis=1).astype(np.float64), points[..., :2].max(axis=1).astype(np.float64)
    from scipy.signal import medfilt

    half, middle = medfilt((high - low).max(axis=1) / 2, 13), (low + high) / 2
    x, y = medfilt(middle[:, 0], 13), medfilt(middle[:, 1], 13)
    mode = align_mode("syncnet-224")
    placed = transforms(mode, points, track.valid, track.size, 224, 1.0)
    for t in (0, 7, 15):
        pad = int(half[t] * 1.8)
        wide = np.pad(frames[t], ((pad, pad), (pad, pad), (0, 0)), "constant", constant_values=110)
        rows = slice(int(y[t] + pad - half[t]), int(y[t] + pad + half[t] * 1.8))
        columns = slice(int(x[t] + pad - half[t] * 1.4), int(x[t] + pad + half[t] * 1.4))
        assert np.array_equal(
            cut(mode, ArrayPicture(frames[t]), placed[t], 224), cv2.resize(wide[rows, columns], (224, 224))
        )


def test_names() -> None:
    assert list(ALIGN_MODES) == [mode.name for mode in ALIGN_MODES.values()]
    assert len(MEDIAPIPE_OF_IBUG68) == 68
    with pytest.raises(ValueError, match="known modes: box, none, eat-128"):
        align_mode("eat")


def test_the_region_read_stays_in_the_picture() -> None:
    far = np.array([[1.0, 0, -5000], [0, 1.0, -5000]])
    assert source_region(far, 64, (99, 101)) == (98, 96, 101, 99)
    for mode in ALIGN_MODES.values():
        if mode.warp is not None:
            crop = cut(mode, ArrayPicture(np.zeros((99, 101, 3), np.uint8)), far, mode.size or 64)
            assert crop.shape == ((mode.size or 64), (mode.size or 64), 3)
