"""MEAD's tree: M901/video/front/<emotion>/level_<n>/<number>.mp4, and M901/audio/ with an m4a for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipelines.synth.clip import FPS, ClipSpec, render_clip
from pipelines.synth.layouts import TRUTH, write_truth
from pipelines.synth.voice import RATE
from talking_face.media.writing import write_audio, write_video

SIZE = "640x360"  # MEAD's own is 1080p; this draws nine times faster


def select(specs: Sequence[ClipSpec]) -> list[ClipSpec]:
    """All."""
    return list(specs)


def paths(out: Path, spec: ClipSpec) -> tuple[Path, ...]:
    """Video, sound, truth."""
    at = Path(spec.emotion) / f"level_{spec.level}" / f"{spec.take:03d}"
    home = out / spec.speaker
    return (
        (home / "video" / "front" / at).with_suffix(".mp4"),
        (home / "audio" / at).with_suffix(".m4a"),
        (out / TRUTH / spec.speaker / "front" / at).with_suffix(".json"),
    )


def write(out: Path, spec: ClipSpec) -> None:
    """H.264 High 4:4:4 Predictive, full range, and AAC LC 48 kHz stereo, as MEAD's are."""
    frames, sound, truth = render_clip(spec)
    video, audio, beside = paths(out, spec)
    # The size and quality of the slower presets (0.3 MB, 44 dB) at half their cost: drawing a clip costs 0.4 s.
    write_video(video, frames, FPS, sound, RATE, crf=18, preset="ultrafast", pix_fmt="yuvj444p", audio_channels=2)
    write_audio(audio, sound, RATE, channels=2)
    write_truth(beside, truth)


def finish(out: Path, specs: Sequence[ClipSpec]) -> None:
    """MEAD has no label file."""


def add_defects(out: Path, specs: Sequence[ClipSpec]) -> None:
    """Not written yet."""
