"""The frames and sound of `ffmpeg -r 25` and of `ffmpeg`: frozen choices, and drawn and real files in the program."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from talking_face.media import file_start, iter_frames, probe, read_audio, read_frames, read_sound, write_video
from talking_face.media.ffmpeg_rate import FfmpegClock

# The choices of FFmpeg 9.0 for 20 frames.
FROZEN = {
    Fraction(24000, 1001): [*range(12), 11, *range(12, 20)],
    Fraction(25): list(range(20)),
    Fraction(30000, 1001): [*range(12), *range(13, 18), 19],
    Fraction(30): [*range(12), *range(13, 18), 19],
    Fraction(50): [0, 1, *range(2, 4), *range(5, 20, 2)],
    Fraction(60): [0, 1, 2, 4, 6, 9, 11, 14, 16, 18],
}


def chosen(times: list[Fraction], length: Fraction) -> list[int]:
    """The index of each output frame."""
    clock, out = FfmpegClock(25), []
    for k, time in enumerate(times):
        before, here = clock.repeats(time, length)
        out += [max(0, k - 1)] * before + [k] * here
    return out + [len(times) - 1] * clock.rest()


@pytest.mark.parametrize("rate", FROZEN)
def test_frozen_choices(rate: Fraction) -> None:
    assert chosen([k / rate for k in range(20)], 1 / rate) == FROZEN[rate]


def test_a_late_first_frame_is_shown_from_the_start_of_the_file() -> None:
    assert chosen([Fraction(2, 5), Fraction(11, 25)], Fraction(1, 25)) == [0] * 11 + [1]


def test_a_gap_repeats_the_frame_before_it() -> None:
    assert chosen([Fraction(0), Fraction(1, 5), Fraction(6, 25)], Fraction(1, 25)) == [0, 0, 0, 0, 1, 1, 2]


@pytest.fixture(scope="module")
def ffmpeg() -> str:
    """The program FFmpeg."""
    path = shutil.which("ffmpeg")
    if path is None:
        pytest.skip("no program ffmpeg: the choice of frames is compared with frozen lists only")
    return path


def drawn(path: Path, rate: Fraction, frames: int = 45) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (frames, 48, 64, 3), np.uint8)
    sound = np.random.default_rng(1).integers(-9000, 9000, 32000).astype(np.int16)
    write_video(path, list(noise), float(rate), None if path.suffix == ".avi" else sound)


def hashes(ffmpeg: str, path: Path, *options: str) -> list[str]:
    """The MD5 of each frame that FFmpeg chooses, with sound as a second output, as the evaluations run it."""
    command = [ffmpeg, "-v", "error", "-nostdin", "-i", str(path), *("-map", "0:v:0"), *options, "-f", "framemd5", "-"]
    out = subprocess.run([*command, "-map", "0:a?", "-f", "null", "-"], capture_output=True, text=True, check=True)
    return [line.rpartition(",")[2].strip() for line in out.stdout.splitlines() if not line.startswith("#")]


def hashes_at_own_rate(ffmpeg: str, path: Path) -> list[str]:
    """The same without `-r`, for a format that needs a constant rate, as pictures (`-f image2`) and raw frames do."""
    command = [ffmpeg, "-v", "error", "-nostdin", "-i", str(path), "-map", "0:v:0", "-f", "rawvideo", "-"]
    raw = subprocess.run([*command, "-map", "0:a?", "-f", "null", "-"], capture_output=True, check=True).stdout
    info = probe(path).video
    assert info is not None
    size = info.width * info.height * {"yuv420p": 3, "yuv444p": 6}[info.pix_fmt] // 2
    return [hashlib.md5(raw[i : i + size]).hexdigest() for i in range(0, len(raw), size)]


def check_choice(ffmpeg: str, path: Path) -> None:
    stored = hashes(ffmpeg, path, "-fps_mode", "passthrough")
    ours = [hashlib.md5(frame.tobytes()).hexdigest() for frame in iter_frames(path, None)]
    assert len(stored) == len(ours)
    name = dict(zip(ours, stored, strict=True))
    for fps, theirs in ((25, hashes(ffmpeg, path, "-r", "25")), (None, hashes_at_own_rate(ffmpeg, path))):
        found = [name[hashlib.md5(frame.tobytes()).hexdigest()] for frame in iter_frames(path, fps, choice="ffmpeg")]
        assert found == theirs, fps


def test_the_sound_is_that_of_the_program(ffmpeg: str, tmp_path: Path, real_clips: list[Path]) -> None:
    """44.1 kHz stereo to 16 kHz mono. The difference is 1 on this clip, and 150 with the zero-phase filter."""
    command = [ffmpeg, "-v", "error", "-nostdin", "-i", str(real_clips[0]), "-vn", "-ac", "1", "-ar", "16000"]
    subprocess.run([*command, str(tmp_path / "sound.wav")], check=True)
    theirs = wavfile.read(tmp_path / "sound.wav")[1].astype(int)
    ours = read_sound(real_clips[0], start=file_start(real_clips[0]), choice="ffmpeg").samples
    assert len(ours) == len(theirs) and abs(ours - theirs).max() <= 3


CASES = [(rate, "mp4") for rate in (*FROZEN, Fraction(12), Fraction(24))]


@pytest.mark.parametrize(("rate", "suffix"), [*CASES, (Fraction(30), "mkv"), (Fraction(30), "avi")])
def test_every_frame_is_that_of_the_program(ffmpeg: str, tmp_path: Path, rate: Fraction, suffix: str) -> None:
    path = tmp_path / f"clip.{suffix}"
    drawn(path, rate)
    check_choice(ffmpeg, path)


@pytest.mark.parametrize("rate", ["24000/1001", "50"])
def test_real_clips_at_other_rates(ffmpeg: str, tmp_path: Path, real_clips: list[Path], rate: str) -> None:
    path = tmp_path / "clip.mp4"
    subprocess.run([ffmpeg, "-v", "error", "-nostdin", "-i", str(real_clips[0]), "-r", rate, str(path)], check=True)
    check_choice(ffmpeg, path)


def test_edit_list_and_late_picture(ffmpeg: str, tmp_path: Path) -> None:
    drawn(tmp_path / "whole.mp4", Fraction(30), 60)
    edits = {
        "cut.mp4": ["-ss", "0.7", "-i", "whole.mp4", "-t", "1.1", "-c", "copy"],
        "late.mp4": ["-itsoffset", "0.43", *(2 * ["-i", "whole.mp4"]), "-map", "0:v", "-map", "1:a", "-c", "copy"],
    }
    for name, options in edits.items():
        subprocess.run([ffmpeg, "-v", "error", "-nostdin", *options, name], check=True, cwd=tmp_path)
        check_choice(ffmpeg, tmp_path / name)
    late = tmp_path / "late.mp4"
    assert len(read_frames(late, 25, choice="ffmpeg")) - len(read_frames(late, 25)) in (11, 12)
    assert len(read_audio(late, start=file_start(late))) - len(read_audio(late)) == pytest.approx(0.43 * 16000, abs=200)
