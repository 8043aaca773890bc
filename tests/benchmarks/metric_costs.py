"""Measures `ms_per_frame` of the metrics: the processor time for one frame of a prediction and its target.

    PYTHONPATH=. python tests/benchmarks/metric_costs.py FOLDER_OF_CLIPS [KEY...]

Each clip is cut to 50 frames with a square of 256 px, and is compared with a blurred copy of itself. The models are
loaded before the first measurement. Without keys, all metrics are measured whose files are present. A metric without a
value on these clips, for example because it needs labels, is printed with its reason.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from cmet_metrics.base import Labels, Metric, Sample
from cmet_metrics.registry import KEYS, get_metric
from talking_face.media import read_frames, read_sound
from talking_face.pretrained.model_files import ModelFiles

FRAMES, SIDE, CLIPS = 50, 256, 3
LABELS = Labels(emotion="happy", reference_emotion="neutral", speaker="a")


def sample(path: Path) -> Sample:
    """The first 50 frames of a clip, cut to the square in the middle and resized to 256 px, with the clip's sound."""
    frames = read_frames(path, 25.0)[:FRAMES]
    height, width = frames.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = np.stack([cv2.resize(f[top : top + side, left : left + side], (SIDE, SIDE)) for f in frames])
    return Sample(square, audio=read_sound(path).samples, name=path.name, labels=LABELS)


def pair(real: Sample) -> tuple[Sample, Sample]:
    """A blurred copy of a clip, and the clip, both without stored landmarks."""
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 1.0) for frame in real.frames])
    reference = Sample(real.frames[:4], name="reference")
    return (
        Sample(blurred, audio=real.audio, name="blurred", labels=LABELS, reference=reference),
        replace(real, _cache={}),
    )


def milliseconds(metric: Metric, clips: list[Sample]) -> float | str:
    """The median over the clips of the processor time for a frame and its target, in ms, or why there is no value."""
    times = []
    for clip in [clips[0], *clips]:  # the first call loads the models and is not counted
        pred, target = pair(clip)
        start = time.process_time()
        score = metric.score(pred, target)
        times.append(1000 * (time.process_time() - start) / len(pred.frames))
        if score.value is None:
            return f"{score.reason}: {score.detail}"
    return median(times[1:])


def main(folder: str, *keys: str) -> None:
    cv2.setNumThreads(1)
    clips = [sample(path) for path in sorted(Path(folder).iterdir())[:CLIPS]]
    files = ModelFiles.from_environment()
    for key in keys or KEYS:
        took = milliseconds(get_metric(key, files), clips)
        print(f"{key:32} {took if isinstance(took, str) else f'{took:.3g} ms'}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
