"""Media that must not be trusted: lists of files, wrong headers, times that jump, hidden frames, several tracks."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from talking_face.clip import MediaSource
from talking_face.faces.speaking import choose_speaker
from talking_face.files import sha256_of
from talking_face.media import Limits, probe, read_audio, read_frames, read_sound
from talking_face.reasons import ClipError, Reason
from tests.hostile import media_clips as clips
from tests.hostile.media_clips import Recipe, disc_of, marked, number_of, tone

PLAIN = Recipe(marked(np.full((1, 64, 64, 3), 128, np.uint8), 40), (tone(1.6),))


def _reason(read: Callable[[], object]) -> Reason:
    with pytest.raises(ClipError) as caught:
        read()
    assert "\n" not in caught.value.detail
    return caught.value.reason


def _numbers(path: Path) -> list[int]:
    return [number_of(frame) for frame in read_frames(path)]


@pytest.mark.parametrize("suffix", ["mp4", "ffconcat", "m3u8"])
def test_a_list_of_files_is_not_media(tmp_path: Path, suffix: str) -> None:
    clips.write(tmp_path / "other.mp4", PLAIN)
    text = "#EXTM3U\n#EXTINF:2,\nother.mp4\n" if suffix == "m3u8" else "ffconcat version 1.0\nfile other.mp4"
    path = tmp_path / f"x.{suffix}"
    path.write_text(text)
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(path, path.name)
    for source in (path, MediaSource(str(tmp_path / "x.tar"), path.name)):
        assert {_reason(lambda s=source, r=r: r(s)) for r in (probe, read_frames, read_audio)} == {Reason.NOT_MEDIA}


@pytest.mark.timeout(20)
def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    (tmp_path / "folder.mp4").mkdir()
    for path in tmp_path.iterdir():
        assert _reason(lambda p=path: probe(p)) is Reason.NOT_MEDIA, path.name
        with pytest.raises(OSError, match=r"is not a regular file|is a folder"):
            sha256_of(path)


def test_the_track_of_another_file_is_not_opened(tmp_path: Path) -> None:
    clips.write(tmp_path / "a.mp4", PLAIN)
    clips.write(tmp_path / "other.mp4", replace(PLAIN, frames=marked(np.zeros((1, 8, 8, 3), np.uint8), 240)[200:]))
    tree = clips.boxes((tmp_path / "a.mp4").read_bytes())
    changed = clips.edited(tree, b"dref", lambda _: clips.alias(str(tmp_path / "other.mp4")))
    (tmp_path / "a.mp4").write_bytes(clips.joined(changed))
    assert _reason(lambda: read_frames(tmp_path / "a.mp4")) is Reason.TRUNCATED  # none of its own frames is left


def test_a_copied_part_has_the_frames_that_are_shown(tmp_path: Path) -> None:
    clips.write(tmp_path / "a.mp4", replace(PLAIN, options={"bf": "2"}))
    clips.copy_part(tmp_path / "a.mp4", tmp_path / "cut.mp4", 0.72, 9.0)
    assert _numbers(tmp_path / "cut.mp4") == list(range(18, 40))
    heard = read_audio(tmp_path / "cut.mp4").astype(float)
    spoken = tone(1.6, 16000).astype(float)[round(0.72 * 16000) :]
    size = min(len(heard), len(spoken))
    assert abs(size - 0.88 * 16000) < 1000
    assert np.corrcoef(heard[:size], spoken[:size])[0, 1] > 0.95


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("aspect", [Fraction(16, 15), Fraction(4, 3), Fraction(64, 45), Fraction(2), Fraction(8, 9)])
def test_the_shape_of_pixels_is_applied(tmp_path: Path, suffix: str, aspect: Fraction) -> None:
    path = tmp_path / f"a.{suffix}"
    clips.write(path, replace(PLAIN, suffix=suffix, aspect=aspect))
    frames = read_frames(path)
    video = probe(path).video
    assert video is not None and (video.height, video.width) == frames.shape[1:3]
    # The disc is round in stored pixels: it is as wide as the pixels are.
    assert disc_of(frames[0]) == pytest.approx(float(aspect), abs=0.04)
    assert video.notes == (f"pixel-aspect-{aspect.numerator}:{aspect.denominator}",)
    assert [number_of(frame) for frame in frames] == list(range(40))


def test_sizes_are_those_of_turned_frames_and_nonsense_is_square(tmp_path: Path) -> None:
    clips.write(tmp_path / "turned.mp4", replace(PLAIN, turn=90, aspect=Fraction(2)))
    video = probe(tmp_path / "turned.mp4").video
    assert video is not None and (video.width, video.height) == (192, 512)
    assert read_frames(tmp_path / "turned.mp4").shape[1:3] == (512, 192)
    clips.write(tmp_path / "odd.mp4", replace(PLAIN, aspect=Fraction(1, 9)))
    video = probe(tmp_path / "odd.mp4").video
    assert video is not None and (video.width, video.height) == (256, 192)
    assert video.notes == ("pixel-aspect-1:9-ignored",)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_cover_picture_is_not_the_video(tmp_path: Path, suffix: str) -> None:
    clips.write(tmp_path / f"a.{suffix}", replace(PLAIN, suffix=suffix, cover=0, cover_attached=False))
    assert _numbers(tmp_path / f"a.{suffix}") == list(range(40))
    clips.write(tmp_path / "b.mp3", replace(PLAIN, frames=None, suffix="mp3", sound_codec="libmp3lame", cover=1))
    assert _reason(lambda: read_frames(tmp_path / "b.mp3")) is Reason.NO_VIDEO
    assert len(read_audio(tmp_path / "b.mp3")) > 20000


@pytest.mark.parametrize("default", [0, 1])
def test_the_default_sound_track_is_taken_and_named(tmp_path: Path, default: int) -> None:
    quiet_and_loud = (PLAIN.sounds[0] // 100, PLAIN.sounds[0])
    clips.write(tmp_path / "a.mkv", replace(PLAIN, suffix="mkv", sounds=quiet_and_loud, default_sound=default))
    sound = read_sound(tmp_path / "a.mkv")
    assert sound.notes == (f"sound-track-{default + 1}-of-2",)
    assert (np.abs(sound.samples).max() > 5000) == bool(default)


def test_channels_that_cancel_out_give_the_louder_one(tmp_path: Path) -> None:
    left = PLAIN.sounds[0]
    for name, right in (("anti", -left), ("half", -left // 2), ("alone", left * 0)):
        clips.write(tmp_path / f"{name}.mp4", replace(PLAIN, sounds=(np.stack([left, right], axis=1),)))
    for name in ("anti", "half"):
        sound = read_sound(tmp_path / f"{name}.mp4")
        assert sound.notes == ("channels-cancel-out-channel-1-used",)
        assert np.abs(sound.samples).max() > 7000
    alone = read_sound(tmp_path / "alone.mp4")  # speech in one channel of two: still the mean
    assert alone.notes == () and 3000 < np.abs(alone.samples).max() < 6000


def test_noise_makes_no_face_speak() -> None:
    rng = np.random.default_rng(0)
    points = [rng.normal(size=(50, 478, 3)).cumsum(axis=0) + 100 * k for k in range(2)]
    seen = [np.ones(50, bool)] * 2
    noise = rng.normal(size=32000)
    loud = {choose_speaker(points, seen, (noise * 3000 * (k % 7)).astype(np.int16)).margin for k in (1, 2)}
    assert None not in loud
    choice = choose_speaker(points, seen, (noise * 31).astype(np.int16))
    assert (choice.how, choice.margin) == ("largest", None)


def test_times_that_jump_are_a_reason_before_frames_are_repeated(tmp_path: Path) -> None:
    times = [k / 25 for k in range(20)] + [1200 + k / 25 for k in range(20)]
    clips.write(tmp_path / "gap.mp4", replace(PLAIN, times=times, sounds=()))
    assert _reason(lambda: read_frames(tmp_path / "gap.mp4")) is Reason.TOO_LONG
    assert _reason(lambda: read_frames(tmp_path / "gap.mp4", 25.0, Limits(seconds=3600))) is Reason.DECODE_ERROR
    clips.write(tmp_path / "late.mkv", replace(PLAIN, suffix="mkv", sound_start=3000.0))
    assert _reason(lambda: read_audio(tmp_path / "late.mkv")) is Reason.TOO_LONG


def test_limits_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    clips.write(path, PLAIN)
    assert len(read_frames(path, limits=Limits(seconds=1.7, pixels=256 * 192, frame_bytes=40 * 256 * 192 * 3))) == 40
    assert _reason(lambda: read_frames(path, limits=Limits(seconds=1.5))) is Reason.TOO_LONG
    assert _reason(lambda: read_audio(path, limits=Limits(seconds=1.5))) is Reason.TOO_LONG
    assert _reason(lambda: read_frames(path, limits=Limits(pixels=40_000))) is Reason.TOO_LARGE
    assert _reason(lambda: probe(path, Limits(pixels=40_000))) is Reason.TOO_LARGE
    assert _reason(lambda: read_frames(path, limits=Limits(frame_bytes=2_000_000))) is Reason.TOO_LARGE


def test_a_picture_that_changes_its_size_and_two_recordings_are_reasons(tmp_path: Path) -> None:
    stream = replace(PLAIN, suffix="ts", codec="mpeg2video", sound_codec="mp2")
    clips.write(tmp_path / "a.ts", stream)
    clips.write(tmp_path / "b.ts", replace(stream, frames=PLAIN.frames[:, :160, :200]))  # type: ignore[index]
    first, second = ((tmp_path / name).read_bytes() for name in ("a.ts", "b.ts"))
    (tmp_path / "sizes.ts").write_bytes(first + second)
    (tmp_path / "twice.ts").write_bytes(first + first)
    for name in ("sizes.ts", "twice.ts"):
        for fps in (25.0, None):
            assert _reason(lambda n=name, f=fps: read_frames(tmp_path / n, f)) is Reason.DECODE_ERROR
