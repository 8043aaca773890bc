"""A flat folder of mp4 files with a labels.csv."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import numpy as np

from embedded_corpus.clip import FPS, ClipSpec, render_clip
from embedded_corpus.layouts import TRUTH, write_bytes, write_text, write_truth
from embedded_corpus.voice import RATE
from talking_face.media import iter_frames, read_audio
from talking_face.media.writing import write_audio, write_video

SIZE = "640x360"


def select(specs: Sequence[ClipSpec]) -> list[ClipSpec]:
    """All."""
    return list(specs)


def paths(out: Path, spec: ClipSpec) -> tuple[Path, ...]:
    """Video, truth."""
    name = f"{spec.speaker}_{spec.emotion}_{spec.level}_{spec.take:03d}"
    return out / f"{name}.mp4", out / TRUTH / f"{name}.json"


def write(out: Path, spec: ClipSpec) -> None:
    """The same files as in MEAD's tree, under flat names."""
    frames, sound, truth = render_clip(spec)
    video, beside = paths(out, spec)
    write_video(video, frames, FPS, sound, RATE, crf=18, preset="ultrafast", pix_fmt="yuvj444p", audio_channels=2)
    write_truth(beside, truth)


def finish(out: Path, specs: Sequence[ClipSpec]) -> None:
    """labels.csv."""
    _write_labels(out, [_row(out, spec) for spec in specs])


def add_defects(out: Path, specs: Sequence[ClipSpec]) -> None:
    """odd/: the first clip in every container, as people have them, and what people's folders hold that is no clip."""
    mine = paths(out, specs[0])[0]
    good, sound = mine.read_bytes(), read_audio(mine, RATE)
    odd = out / "odd"
    rows = [_row(out, spec) for spec in specs]

    def put(name: str, data: bytes = good, **labels: str) -> None:
        write_bytes(odd / name, data)
        if labels:
            rows.append(rows[0] | {"file": f"odd/{name}"} | labels)

    def make(name: str, frames: Iterable[np.ndarray], with_sound: bool = True, **options: Any) -> bytes:
        if not (odd / name).is_file():
            write_video(odd / name, frames, FPS, sound if with_sound else None, RATE, crf=18, **options)
        return (odd / name).read_bytes()

    def pictures() -> Iterator[np.ndarray]:
        return iter_frames(mine, None)

    # Good: containers and codecs, a false suffix and none, sound apart, members of a tar.
    mkv = make("a.mkv", pictures(), preset="ultrafast", pix_fmt="yuv420p", audio_codec="flac")
    make("b.mov", pictures(), preset="ultrafast", pix_fmt="yuv420p", audio_codec="pcm_s16le")
    make("c.avi", pictures(), codec="mpeg4", pix_fmt="yuv420p", audio_codec="libmp3lame", options={"b": "2000000"})
    make("d.webm", pictures(), codec="libvpx", pix_fmt="yuv420p", audio_codec="libopus",
         options={"b": "2000000", "deadline": "realtime", "cpu-used": "8"})  # fmt: skip
    make("e.mpg", pictures(), codec="mpeg1video", pix_fmt="yuv420p", audio_codec="mp2", options={"b": "4000000"})
    put("really_mkv.mp4", mkv)
    put("camera_file")
    silent = make("silent.mp4", pictures(), with_sound=False, preset="ultrafast", pix_fmt="yuv420p")
    if not (odd / "silent.wav").is_file():
        write_audio(odd / "silent.wav", sound, RATE, codec="pcm_s16le")
    wav = (odd / "silent.wav").read_bytes()
    tar = _tar({"one.mp4": good, "deep/two.mp4": good, "._one.mp4": b"\0\5\x16\7", "x.txt": b"x", "../out.mp4": good})
    put("day1.tar", tar)
    rows.append(rows[0] | {"file": "odd/day1/one.mp4", "speaker": "X901", "emotion": "sarcastic"})
    put("day2.tar", tar[: len(good) + 20_000])  # cut within its second member
    # Clips that cannot be: found out when they are read.
    put("cut.mp4", good[: len(good) * 2 // 3])
    put("half.mkv", mkv[: len(mkv) // 2])
    put("empty.mp4", b"")
    put("text.mp4", b"This is no film.\n" * 40)
    put("pointer.mp4", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 100000\n")
    put("no_sound.mp4", silent)
    put("no_picture.mp4", wav)
    make("short.mp4", islice(pictures(), 2), preset="ultrafast", pix_fmt="yuv420p")
    make("nobody.mp4", repeat(np.full((180, 320, 3), 96, np.uint8), 24), preset="ultrafast", pix_fmt="yuv420p")
    # Labels that cannot be, and files that are no clips.
    put("bad_level.mp4", intensity="high")
    put("bad_split.mp4", split="exam")
    put("bad_sound.mp4", audio="odd/gone.wav")
    put("sound.wav", wav, speaker="X901")
    rows.append(rows[0] | {"file": "odd/gone.mp4"})
    put("lonely.flac", wav)
    put("a.mp4")  # the name of a.mkv
    put("._b.mov", b"\0\5\x16\7" + bytes(78))
    put(".hidden.mp4")
    put("notes.txt", b"notes\n")
    put("day3.tar.gz", gzip.compress(tar, mtime=0))
    if not (odd / "outside.mp4").is_symlink():
        (odd / "outside.mp4").symlink_to(Path("../../elsewhere.mp4"))
    _write_labels(out, rows)


def _row(out: Path, spec: ClipSpec) -> dict[str, str]:
    video, truth = paths(out, spec)
    said = json.loads(truth.read_text(encoding="utf-8"))
    return {
        **{"file": video.name, "speaker": spec.speaker, "emotion": spec.emotion, "intensity": str(spec.level)},
        **{"sentence_id": said["sentence_id"], "transcript": said["text"]},
    }


def _write_labels(out: Path, rows: Sequence[dict[str, str]]) -> None:
    """labels.csv, with a column for each label that any row has."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(out / "labels.csv", text.getvalue())


def _tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "one.mp4"
        archive.addfile(link)
    return buffer.getvalue()
