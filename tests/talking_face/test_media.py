"""Media: time grids, sound in step with the picture, colours, surround, tar members, and files that are not media."""

from __future__ import annotations

import tarfile
from fractions import Fraction
from math import gcd
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from scipy.signal import resample_poly

from talking_face.clip import MediaSource
from talking_face.media import Encoding, iter_frames, probe, read_audio, read_frames, write_audio, write_video
from talking_face.media.resampling import resample
from talking_face.media.writing import copy_sound
from talking_face.reasons import ClipError, Reason

BITS = 8


def _coded(index: int, width: int = 128, height: int = 64) -> np.ndarray:
    """A frame that carries its own index as eight black or white bars: it survives any codec."""
    bits = [(index >> b) & 1 for b in range(BITS)]
    return np.repeat(np.repeat(np.array(bits, np.uint8)[None] * 255, width // BITS, 1), height, 0)[..., None].repeat(
        3, 2
    )


def _decoded(frame: np.ndarray) -> int:
    height, width = frame.shape[:2]
    row = frame[height // 2, width // BITS // 2 :: width // BITS, 0]
    return sum(1 << b for b in range(BITS) if row[b] > 127)


def test_a_copied_sound_track_is_the_file_that_encoding_writes(tmp_path: Path) -> None:
    sound = (np.sin(np.arange(48_000) / 30) * 9000).astype(np.int16)
    frames = np.zeros((30, 64, 64, 3), np.uint8)
    write_video(tmp_path / "v.mp4", frames, 30, sound, 48_000, Encoding(audio_channels=2))
    copy_sound(tmp_path / "v.mp4", tmp_path / "copied.m4a")
    write_audio(tmp_path / "encoded.m4a", sound, 48_000, channels=2)
    assert (tmp_path / "copied.m4a").read_bytes() == (tmp_path / "encoded.m4a").read_bytes()


@pytest.mark.parametrize("fps", [30, Fraction(24000, 1001), 25, 50, 12])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_every_output_frame_is_the_nearest_source_frame(tmp_path: Path, fps: Fraction, suffix: str) -> None:
    n = 61
    path = tmp_path / f"clip.{suffix}"
    write_video(path, [_coded(i) for i in range(n)], float(fps))
    got = [_decoded(f) for f in iter_frames(path)]
    assert abs(len(got) - n / float(fps) * 25) <= 0.5 + 1e-6
    for k, index in enumerate(got):
        # mkv stores times in whole milliseconds, hence 1 ms of slack.
        distance = abs(index / float(fps) - k / 25)
        best = min(abs(i / float(fps) - k / 25) for i in range(n))
        assert distance <= best + 1.1e-3, (k, index)


def test_native_frames_are_all_there(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", [_coded(i) for i in range(40)], 30.0)
    assert [_decoded(f) for f in iter_frames(tmp_path / "a.mp4", None)] == list(range(40))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("shift", [0.0, 0.12])
def test_sound_stays_in_step_with_picture(tmp_path: Path, suffix: str, shift: float) -> None:
    """A flash and a click at 1.0 s come out together, also where the sound track starts later than the picture."""
    frames = [np.full((64, 64, 3), 255 if i == 30 else 0, np.uint8) for i in range(60)]
    click = np.zeros(96000, np.int16)
    click[48000:48048] = 20000
    path = tmp_path / f"clip.{suffix}"
    write_video(path, frames, 30.0, click, 48000, Encoding(audio_channels=2))
    if shift:
        path = _delay_sound(path, tmp_path / f"late.{suffix}", shift)
    flash = int(np.argmax([f.mean() for f in iter_frames(path)])) / 25
    heard = int(np.argmax(np.abs(read_audio(path).astype(int)))) / 16000
    assert flash == pytest.approx(1.0, abs=0.021)
    assert heard == pytest.approx(1.0 + shift, abs=0.003)


def _delay_sound(path: Path, out: Path, seconds: float) -> Path:
    with av.open(str(path)) as source, av.open(str(out), "w") as target:
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if not packet.size:
                continue
            if packet.stream.type == "audio":
                packet.pts += round(seconds / packet.time_base)
                packet.dts = packet.pts
            packet.stream = streams[packet.stream.index]
            target.mux(packet)
    return out


def test_surround_gives_its_centre_channel(tmp_path: Path) -> None:
    t = np.arange(48000) / 48000
    tones = np.stack([np.sin(2 * np.pi * f * t) for f in (300, 500, 1000, 40, 700, 900)], 1)  # FL FR FC LFE BL BR
    write_audio(tmp_path / "a.wav", (tones * 9000).astype(np.int16), 48000, codec="pcm_s16le")
    assert probe(tmp_path / "a.wav").audio.layout.startswith("5.1")  # type: ignore[union-attr]
    spectrum = np.abs(np.fft.rfft(read_audio(tmp_path / "a.wav").astype(float)))
    assert int(np.argmax(spectrum)) == 1000
    spectrum[990:1011] = 0
    assert spectrum.max() < 0.02 * 9000 * 8000


def test_stereo_is_averaged_and_resampled_without_delay(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    low = cv2.GaussianBlur(rng.normal(size=(1, 44100)).astype(np.float32), (0, 0), 20)[0]
    signal = (low / np.abs(low).max() * 12000).astype(np.int16)
    write_audio(tmp_path / "a.wav", np.stack([signal, np.zeros_like(signal)], 1), 44100, codec="pcm_s16le")
    got = read_audio(tmp_path / "a.wav").astype(float)
    expected = np.interp(np.arange(16000) / 16000, np.arange(44100) / 44100, signal / 2)
    assert len(got) == 16000
    assert np.abs(got[100:-100] - expected[100:-100]).max() < 30


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 24000, 44100, 44056, 48000, 16001])
def test_resampling_equals_scipy_to_the_bit(rate: int) -> None:
    for count in (0, 1, 300, 20011):
        samples = np.random.default_rng(count).normal(0, 0.2, count).astype(np.float32)
        common = gcd(rate, 16000)
        wanted = resample_poly(samples, 16000 // common, rate // common) if count else samples
        np.testing.assert_array_equal(resample(samples, rate, 16000), wanted)


@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuvj444p", "yuv420p", "yuv420p10le"])
def test_colours_survive_every_pixel_format(tmp_path: Path, pix_fmt: str) -> None:
    colours = np.array(
        [[200, 50, 30], [10, 240, 60], [128, 128, 128], [255, 255, 255], [0, 0, 0], [30, 60, 220]], np.uint8
    )
    frame = np.repeat(np.repeat(colours[None], 32, 0), 32, 1)
    write_video(tmp_path / "a.mp4", [frame] * 3, 25.0, encoding=Encoding(crf=4, pix_fmt=pix_fmt))
    got = read_frames(tmp_path / "a.mp4")[0][16, 16::32].astype(int)
    assert np.abs(got - colours).max() <= 4, got


def test_frames_are_contiguous_at_odd_widths(real_clips: list[Path]) -> None:
    frame = next(iter_frames(real_clips[0]))
    assert frame.shape == (288, 360, 3) and frame.flags.c_contiguous and frame.dtype == np.uint8


def test_real_clips_have_75_frames_and_3_seconds_of_sound(real_clips: list[Path]) -> None:
    for path in real_clips:
        assert len(list(iter_frames(path))) == 75, path.name
        assert len(read_audio(path)) == pytest.approx(48000, abs=1600), path.name


def test_same_frames_same_bytes(tmp_path: Path) -> None:
    frames = np.stack([_coded(i) for i in range(12)])
    sound = (np.sin(np.arange(7680) / 5) * 9000).astype(np.int16)
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, frames, 25.0, sound)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_a_tar_member_reads_as_the_file_itself(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", [_coded(i) for i in range(30)], 30.0, np.zeros(16000, np.int16))
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "a.mp4", "video/a.mp4")
    member = MediaSource(str(tmp_path / "a.tar"), "video/a.mp4")
    assert np.array_equal(read_frames(member), read_frames(tmp_path / "a.mp4"))
    assert np.array_equal(read_audio(member), read_audio(tmp_path / "a.mp4"))
    with pytest.raises(ClipError) as caught:
        read_frames(MediaSource(str(tmp_path / "a.tar"), "../a.mp4"))
    assert caught.value.reason is Reason.MISSING_FILE


def test_what_is_not_media_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("hello\n" * 100)
    (tmp_path / "pointer.mp4").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    write_video(tmp_path / "good.mp4", [_coded(i) for i in range(100)], 25.0, encoding=Encoding(options={"g": "10"}))
    data = (tmp_path / "good.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 6 // 10])
    write_video(tmp_path / "whole.mkv", [_coded(i) for i in range(100)], 25.0, np.zeros(64000, np.int16))
    data_mkv = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data_mkv[: len(data_mkv) * 6 // 10])
    assert len(read_frames(tmp_path / "whole.mkv")) == 100
    (tmp_path / "headless.mp4").write_bytes(data[:24] + b"\0" * 5000)
    write_audio(tmp_path / "sound.m4a", np.zeros(8000, np.int16), 16000)
    expected = {
        "absent.mp4": Reason.MISSING_FILE,
        "empty.mp4": Reason.EMPTY_FILE,
        "text.mp4": Reason.NOT_MEDIA,
        "pointer.mp4": Reason.LFS_POINTER,
        "cut.mp4": Reason.TRUNCATED,
        "cut.mkv": Reason.TRUNCATED,
        "headless.mp4": Reason.TRUNCATED,
        "sound.m4a": Reason.NO_VIDEO,
    }
    for name, reason in expected.items():
        with pytest.raises(ClipError) as caught:
            read_frames(tmp_path / name)
        assert caught.value.reason is reason, (name, caught.value)
        assert name in caught.value.detail
    with pytest.raises(ClipError) as caught:
        read_audio(tmp_path / "good.mp4")
    assert caught.value.reason is Reason.NO_AUDIO
