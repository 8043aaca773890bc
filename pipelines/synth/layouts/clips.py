"""A flat folder of mp4 files with a labels.csv."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from pipelines.synth.clip import FPS, ClipSpec, render_clip
from pipelines.synth.layouts import TRUTH, write_text, write_truth
from pipelines.synth.voice import RATE
from talking_face.media.writing import write_video

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
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("file", "speaker", "emotion", "intensity", "sentence_id", "transcript"))
    for spec in specs:
        video, truth = paths(out, spec)
        said = json.loads(truth.read_text(encoding="utf-8"))
        table.writerow((video.name, spec.speaker, spec.emotion, spec.level, said["sentence_id"], said["text"]))
    write_text(out / "labels.csv", text.getvalue())


def add_defects(out: Path, specs: Sequence[ClipSpec]) -> None:
    """Not written yet."""
