"""The pictures of the file that `ffmpeg -i IN -r 25 OUT.mp4` writes, against the program itself."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from talking_face.media import Encoding, read_frames, read_video, write_video
from talking_face.media.ffmpeg_store import store_as_ffmpeg
from talking_face.reasons import ClipError, Reason


def smooth(frames: int = 20, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """Moving blocks, (T, H, W, 3) uint8."""
    small = np.random.default_rng(0).integers(0, 256, (frames + 8, size[0] // 8 + 1, size[1] // 8 + 1, 3), np.uint8)
    mixed = sum(small[k : k + frames].astype(float) for k in range(8)) / 8
    return mixed.repeat(8, axis=1).repeat(8, axis=2)[:, : size[0], : size[1]].astype(np.uint8)


def x264_of(path: Path) -> str:
    """The release of x264 that wrote the file."""
    found = re.search(rb"x264 - core (\d+)", path.read_bytes())
    assert found is not None
    return found[1].decode()


LOSSLESS_RGB = Encoding("ffv1", pix_fmt="bgr0")


@pytest.mark.parametrize(
    ("rate", "encoding"),
    [(25.0, Encoding()), (30.0, Encoding()), (24000 / 1001, Encoding()), (25.0, LOSSLESS_RGB)],
)
def test_the_pictures_are_those_of_the_program(rate: float, encoding: Encoding, tmp_path: Path) -> None:
    program = shutil.which("ffmpeg")
    if program is None:
        pytest.skip("no program ffmpeg: its stored pictures are not compared")
    source, theirs, ours = tmp_path / "in.mkv", tmp_path / "theirs.mp4", tmp_path / "ours.mp4"
    write_video(source, smooth(), rate, None, 16000, encoding)
    subprocess.run([program, "-loglevel", "error", "-i", source, "-r", "25", theirs], check=True)
    store_as_ffmpeg(source, ours, 25)
    if x264_of(theirs) != x264_of(ours):
        pytest.skip(f"the program has x264 {x264_of(theirs)}, PyAV has {x264_of(ours)}: other pictures")
    assert np.array_equal(read_frames(theirs, None), read_frames(ours, None))
    assert read_video(ours).fps == 25 and not np.array_equal(read_frames(ours, None)[0], read_frames(source, None)[0])


@pytest.mark.parametrize("turn", ["90", "270"])
def test_a_turned_video_is_stored_upright_as_by_the_program(turn: str, tmp_path: Path) -> None:
    program = shutil.which("ffmpeg")
    if program is None:
        pytest.skip("no program ffmpeg: a turned video is not compared")
    source, turned, theirs, ours = (tmp_path / f"{name}.mp4" for name in ("in", "turned", "theirs", "ours"))
    write_video(source, smooth(5), 25.0, None, 16000)
    for words in (["-display_rotation", turn, "-i", source, "-c", "copy", turned], ["-i", turned, "-r", "25", theirs]):
        subprocess.run([program, "-loglevel", "error", *words], check=True)
    store_as_ffmpeg(turned, ours, 25)
    a, b = (read_frames(path, None).astype(int) for path in (theirs, ours))
    assert a.shape == b.shape and abs(a - b).mean() < 3  # upside down, the mean is above 20


def test_the_memory_of_this_process_does_not_change_the_pictures(tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    write_video(source, smooth(size=(88, 120)), 25.0, None, 16000)
    stored = []
    for name in ("a.mp4", "b.mp4"):
        store_as_ffmpeg(source, tmp_path / name, 25)
        stored.append((tmp_path / name).read_bytes())
    assert stored[0] == stored[1]


def test_what_cannot_be_stored_has_a_reason(tmp_path: Path) -> None:
    (tmp_path / "no.mp4").write_bytes(b"no video")
    with pytest.raises(ClipError) as error:
        store_as_ffmpeg(tmp_path / "no.mp4", tmp_path / "out.mp4", 25)
    assert error.value.reason is Reason.NOT_MEDIA
    gone = tmp_path / "gone" / "out.mp4"
    write_video(tmp_path / "in.mp4", smooth(4), 25.0, None, 16000)
    with pytest.raises(ClipError, match="cannot store it as H"):
        store_as_ffmpeg(tmp_path / "in.mp4", gone, 25)
