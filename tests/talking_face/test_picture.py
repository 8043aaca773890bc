"""A window cut out and scaled by FFmpeg before colour conversion shows what the whole frame shows there."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from talking_face.faces.crop import CropBox, crop_picture
from talking_face.media import ArrayPicture, Encoding, iter_frames, iter_pictures, write_video

WINDOW = (36, 20, 196, 180)


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """(3, 240, 320, 3): smooth colours with edges, moving."""
    y, x = np.mgrid[0:240, 0:320].astype(np.float32)
    frames = [
        np.stack([128 + 100 * np.sin(x / 23 + k), 128 + 90 * np.cos(y / 17 - k), 60 + (x + y) / 4], -1)
        for k in range(3)
    ]
    for k, frame in enumerate(frames):
        cv2.circle(frame, (120 + 9 * k, 100), 40, (220, 180, 150), -1, cv2.LINE_AA)
    return np.stack(frames).astype(np.uint8)


@pytest.mark.parametrize("pix_fmt", ["yuvj444p", "yuv420p", "yuv422p10le"])
def test_windows_equal_the_whole(scene: np.ndarray, pix_fmt: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, scene, encoding=Encoding(pix_fmt=pix_fmt, crf=4))
    left, top, right, bottom = WINDOW
    for picture, frame in zip(iter_pictures(path), iter_frames(path), strict=True):
        assert picture.snap(*WINDOW) == WINDOW
        view = picture.window(*WINDOW)
        assert view.flags.c_contiguous
        whole = frame[top:bottom, left:right]
        off = np.abs(view.astype(int) - whole)
        # 10 bits go another way through FFmpeg, with another rounding of chroma at edges.
        assert off.max() == 0 if pix_fmt in ("yuvj444p", "yuv420p") else off.mean() < 1
        small = picture.window(*WINDOW, (80, 80)).astype(int)
        assert np.abs(small - cv2.resize(whole, (80, 80), interpolation=cv2.INTER_AREA)).mean() < (
            1 if pix_fmt == "yuvj444p" else 2.5
        )
        part = picture.copy(*WINDOW)
        assert (part.width, part.height) == (160, 160) and part.nbytes < picture.nbytes
        assert np.array_equal(part.window(20, 20, 120, 120), picture.window(56, 40, 156, 140))
        small = picture.thumbnail(64, 36)
        assert small.shape == (36, 64) and small.dtype == np.uint8
        assert np.abs(small.astype(int) - ArrayPicture(frame).thumbnail(64, 36)).mean() < 4


@pytest.mark.parametrize("box", [CropBox(40, 30, 96), CropBox(-12, 20, 150), CropBox(250, 180, 120)])
def test_a_crop_of_a_kept_part_is_the_crop_of_the_whole(scene: np.ndarray, box: CropBox, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, scene, encoding=Encoding(pix_fmt="yuvj444p"))
    for picture in iter_pictures(path):
        part = picture.snap(box.left - 8, box.top - 8, box.left + box.side + 8, box.top + box.side + 8)
        crop = crop_picture(picture, box, 64)
        kept = crop_picture(picture.copy(*part), box, 64, part[:2])
        assert np.abs(crop.astype(int) - kept).max() <= 1
        plain = crop_picture(ArrayPicture(picture.rgb()), box, 64)
        assert np.abs(crop.astype(int) - plain).mean() < 1


def test_a_rotated_phone_video_is_upright(scene: np.ndarray, tmp_path: Path) -> None:
    rotated = ArrayPicture(np.ascontiguousarray(np.rot90(scene[0])))
    assert (rotated.width, rotated.height) == (240, 320)
    assert rotated.snap(-5, 3, 1000, 9) == (0, 3, 240, 9)
