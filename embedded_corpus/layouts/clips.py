"""Writes the embedded corpus as a flat folder of mp4 files with a labels.csv."""

from __future__ import annotations

import csv
import gzip
import io
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, repeat
from pathlib import Path

import numpy as np

from embedded_corpus.clip import FPS, ClipSpec, render_clip
from embedded_corpus.layouts import TRUTH, read_truth, tar_of, write_once, write_truth
from embedded_corpus.voice import RATE
from talking_face.files import write_text
from talking_face.media import iter_frames, read_audio
from talking_face.media.writing import Encoding, write_audio, write_video

SIZE = "640x360"


def select(specs: Sequence[ClipSpec]) -> list[ClipSpec]:
    """All clips, because this layout has no restriction."""
    return list(specs)


def paths(out: Path, spec: ClipSpec) -> tuple[Path, ...]:
    """The files of a clip: video and ground truth."""
    name = f"{spec.speaker}_{spec.emotion}_{spec.level}_{spec.take:03d}"
    return out / f"{name}.mp4", out / TRUTH / f"{name}.json"


def write(out: Path, spec: ClipSpec) -> None:
    """Writes the video in the same encoding as MEAD's layout, but without folders and without a separate sound file."""
    frames, sound, truth = render_clip(spec)
    video, truth_file = paths(out, spec)
    encoding = Encoding(crf=18, preset="ultrafast", pix_fmt="yuvj444p", audio_channels=2)
    write_video(video, frames, FPS, sound, RATE, encoding)
    write_truth(truth_file, truth)


def finish(out: Path, specs: Sequence[ClipSpec]) -> None:
    """Writes labels.csv."""
    _write_labels(out, [_row(out, spec) for spec in specs])


def add_defects(out: Path, specs: Sequence[ClipSpec]) -> None:
    """Writes the folder odd/: the first clip in other containers, damaged files, and files that are not clips."""
    clip = paths(out, specs[0])[0]
    rows = [_row(out, spec) for spec in specs]
    odd = _OddFolder(out / "odd", clip, clip.read_bytes(), read_audio(clip, RATE), rows)
    mkv = _add_containers(odd)
    silent = odd.make("silent.mp4", odd.pictures(), _H264, with_sound=False)
    if not (odd.folder / "silent.wav").is_file():
        write_audio(odd.folder / "silent.wav", odd.sound, RATE, codec="pcm_s16le")
    wav = (odd.folder / "silent.wav").read_bytes()
    tar = _add_archives(odd)
    _add_damaged(odd, mkv, silent, wav)
    _add_mislabelled(odd, wav, tar)
    _write_labels(out, odd.rows)


_H264 = Encoding(crf=18, preset="ultrafast", pix_fmt="yuv420p")


@dataclass
class _OddFolder:
    """The folder odd/, and the clip from which the files of this folder are made."""

    folder: Path
    clip: Path
    good: bytes  # content of the clip's file
    sound: np.ndarray  # (N,) int16 mono at RATE
    rows: list[dict[str, str]]  # rows of labels.csv

    def put(self, name: str, data: bytes, **labels: str) -> None:
        """Writes a file. If labels are given, also adds a row to labels.csv."""
        write_once(self.folder / name, data)
        if labels:
            self.add_row(name, **labels)

    def add_row(self, name: str, **labels: str) -> None:
        """Adds a copy of the first clip's row of labels, with the file name `name` and with `labels` changed."""
        self.rows.append(self.rows[0] | {"file": f"odd/{name}"} | labels)

    def make(self, name: str, frames: Iterable[np.ndarray], encoding: Encoding, with_sound: bool = True) -> bytes:
        """Encodes a video file. Returns the bytes of the file."""
        path = self.folder / name
        if not path.is_file():
            write_video(path, frames, FPS, self.sound if with_sound else None, RATE, encoding)
        return path.read_bytes()

    def pictures(self) -> Iterator[np.ndarray]:
        return iter_frames(self.clip, None)


def _add_containers(odd: _OddFolder) -> bytes:
    """Adds good files: other container formats and codecs, a file with a wrong suffix, a file without a suffix.

    Returns the bytes of the Matroska file.
    """
    bits = {"b": "2000000"}
    fast = {"deadline": "realtime", "cpu-used": "8"}
    mkv = odd.make("a.mkv", odd.pictures(), replace(_H264, audio_codec="flac"))
    for name, encoding in {
        "b.mov": replace(_H264, audio_codec="pcm_s16le"),
        "c.avi": Encoding(codec="mpeg4", pix_fmt="yuv420p", audio_codec="libmp3lame", options=bits),
        "d.webm": Encoding(codec="libvpx", pix_fmt="yuv420p", audio_codec="libopus", options=bits | fast),
        "e.mpg": Encoding(codec="mpeg1video", pix_fmt="yuv420p", audio_codec="mp2", options={"b": "4000000"}),
    }.items():
        odd.make(name, odd.pictures(), encoding)
    odd.put("really_mkv.mp4", mkv)
    odd.put("camera_file", odd.good)
    return mkv


def _add_archives(odd: _OddFolder) -> bytes:
    """Adds a tar of clips, and a tar whose second member is truncated. Returns the bytes of the complete tar."""
    good, resource = odd.good, b"\0\5\x16\7"
    members = {"one.mp4": good, "deep/two.mp4": good, "._one.mp4": resource, "x.txt": b"x", "../out.mp4": good}
    tar = tar_of(members, tarfile.USTAR_FORMAT, {"link.mp4": "one.mp4"})
    odd.put("day1.tar", tar)
    odd.add_row("day1/one.mp4", speaker="X901", emotion="sarcastic")
    odd.put("day2.tar", tar[: len(good) + 20_000])
    return tar


def _add_damaged(odd: _OddFolder, mkv: bytes, silent: bytes, wav: bytes) -> None:
    """Adds files with defects that are found only when the files are read."""
    odd.put("cut.mp4", odd.good[: len(odd.good) * 2 // 3])
    odd.put("half.mkv", mkv[: len(mkv) // 2])
    odd.put("empty.mp4", b"")
    odd.put("text.mp4", b"This is no film.\n" * 40)
    odd.put("pointer.mp4", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 100000\n")
    odd.put("no_sound.mp4", silent)
    odd.put("no_picture.mp4", wav)
    odd.make("short.mp4", islice(odd.pictures(), 2), _H264)
    odd.make("nobody.mp4", repeat(np.full((180, 320, 3), 96, np.uint8), 24), _H264)


def _add_mislabelled(odd: _OddFolder, wav: bytes, tar: bytes) -> None:
    """Adds files with impossible labels, and files that are not clips."""
    odd.put("bad_level.mp4", odd.good, intensity="high")
    odd.put("bad_split.mp4", odd.good, split="exam")
    odd.put("bad_sound.mp4", odd.good, audio="odd/gone.wav")
    odd.put("sound.wav", wav, speaker="X901")
    odd.add_row("gone.mp4")
    odd.put("lonely.flac", wav)
    odd.put("a.mp4", odd.good)  # the same name as a.mkv
    odd.put("._b.mov", b"\0\5\x16\7" + bytes(78))
    odd.put(".hidden.mp4", odd.good)
    odd.put("notes.txt", b"notes\n")
    odd.put("day3.tar.gz", gzip.compress(tar, mtime=0))
    link = odd.folder / "outside.mp4"
    if not link.is_symlink():
        link.symlink_to(Path("../../elsewhere.mp4"))


def _row(out: Path, spec: ClipSpec) -> dict[str, str]:
    video, truth = paths(out, spec)
    known = read_truth(truth)
    return {
        "file": video.name,
        "speaker": spec.speaker,
        "emotion": spec.emotion,
        "intensity": str(spec.level),
        "sentence_id": known["sentence_id"],
        "transcript": known["text"],
    }


def _write_labels(out: Path, rows: Sequence[dict[str, str]]) -> None:
    """Writes labels.csv, with one column per label that any row has."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(out / "labels.csv", text.getvalue())
