"""Scoring of generated videos, against their ground truth where there is one, as it runs in a worker's child.

A video is decoded once for all metrics, and landmarks are shared between them through the sample. A task holds videos
that share a ground truth: dlib's points cost about 25 ms a frame, and the target's are then found once for all methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from cmet_eval.runs.generate import open_shards
from cmet_metrics.base import Labels, Metric, Sample, Score
from cmet_metrics.registry import get_metric
from talking_face.clip import Pair
from talking_face.files import read_json, sha256_of, write_json
from talking_face.media.reading import probe, read_audio, read_frames
from talking_face.pretrained.corpus_nets import look_beside
from talking_face.reasons import ClipError, Reason
from talking_face.signature import digest

FPS = 25.0
# What is done to a video that is not at the ground truth's rate, size or length. Part of the scores' key.
FRAME_RULE = "fps:nearest-25,size:as-is"
_NO_LABELS = Labels()


@dataclass(frozen=True)
class Expected:
    """What a video is scored against: the part of its pair that the metrics see.

    Where no metric reads labels, the reference or the ground truth they stay empty, so that a video which several pairs
    have in common (ground truth, most of all) is scored once.
    """

    ground_truth_clip: str | None
    labels: Labels = _NO_LABELS
    reference_clip: str | None = None
    reference_frames: tuple[int, ...] = ()  # indices into the reference clip

    @classmethod
    def of(cls, pair: Pair, metrics: Sequence[Metric]) -> Expected:
        expected = cls(pair.ground_truth_clip if any(metric.needs_target for metric in metrics) else None)
        if any(metric.needs_labels for metric in metrics):
            labels = Labels(pair.target_emotion, pair.reference_emotion, pair.speaker)
            expected = replace(expected, labels=labels)
        if any(metric.needs_reference for metric in metrics):
            expected = replace(
                expected, reference_clip=pair.reference_clip, reference_frames=tuple(pair.reference_frames)
            )
        return expected


@dataclass(frozen=True)
class Job:
    """One video to score."""

    key: str  # of `scoring_key`
    video: str
    expected: Expected
    out: str  # JSON path for the scores; named after the key


def scoring_key(video_sha256: str, expected: Expected, data_digest: str, how: Sequence[str]) -> str:
    """Digest of everything the scores of one video depend on; `how` holds metric signatures and the suite's version."""
    return digest([video_sha256, asdict(expected), data_digest, sorted(how), FRAME_RULE], 32)


def stored_scores(job: Job) -> dict[str, Any]:
    """The scores that are there already; {} where there are none, or a weight file was missing and may be here now."""
    stored = read_json(Path(job.out))
    if stored.get("key") != job.key:
        return {}
    gone = any(item["reason"] == Reason.MISSING_WEIGHTS.value for item in stored["scores"])
    return {} if gone else stored


def score_group(jobs: Sequence[Job], data: str, metric_keys: Sequence[str]) -> None:
    """Score videos that share one ground truth, whose landmarks are then found once. Each job's scores are written as
    they are ready, so that what was done before a kill is kept; see `score_video`."""
    for job in jobs:
        if not stored_scores(job):
            score_video(job, data, metric_keys)


def score_video(job: Job, data: str, metric_keys: Sequence[str]) -> dict[str, Any]:
    """Score one video and write the scores to `job.out` by an atomic rename.

    Args:
        job: the video; any container, rate and size.
        data: folder of the shard set that holds the ground truth.
        metric_keys: `name:variant`.

    Returns:
        what was written: {"key", "codec", "notes", "video_sha256", "scores": [{"metric", "value", "reason", "detail",
        "n", "stats"}]}
    """
    path = Path(job.video)
    look_beside(data)
    metrics = [get_metric(metric_key) for metric_key in metric_keys]
    notes: list[str] = []
    codec = ""
    scores: dict[str, Score]
    try:
        info = probe(path)
        if info.video is None:
            raise ClipError(Reason.NO_VIDEO, f"{path.name} has no picture")
        codec = f"{info.video.codec}-{info.video.pix_fmt}"
        # Rates such as 24.999 come from containers with coarse clocks.
        if abs(info.video.fps - FPS) > 0.01:
            notes.append(f"resampled from {info.video.fps:g} to {FPS:g} frames/s, nearest frame")
        scores = _scores(path, job.expected, data, metrics)
    except ClipError as error:
        scores = {metric.key: Score.missing(error.reason, error.detail) for metric in metrics}
    result = {
        "key": job.key,
        "codec": codec,
        "notes": notes,
        "video_sha256": sha256_of(path),
        "scores": [{"metric": name, **_plain(score)} for name, score in scores.items()],
    }
    write_json(Path(job.out), result)
    return result


def _scores(path: Path, expected: Expected, data: str, metrics: Sequence[Metric]) -> dict[str, Score]:
    with_audio = any(getattr(metric, "needs_audio", False) for metric in metrics)
    target = _target(data, expected.ground_truth_clip) if expected.ground_truth_clip is not None else None
    frames = read_frames(path, FPS)
    wrong_size = None
    if target is not None and frames.shape[1:3] != target.frames.shape[1:3]:
        (h, w), (gh, gw) = frames.shape[1:3], target.frames.shape[1:3]
        wrong_size = Score.missing(
            Reason.SIZE_MISMATCH,
            f"{path.name} is {w}x{h}, the ground truth {gw}x{gh}; videos are scored as they are, so write that size",
        )
    pred = Sample(
        frames,
        fps=FPS,
        audio=_audio(path) if with_audio else None,
        name=path.name,
        labels=expected.labels,
        reference=_reference(data, expected.reference_clip, expected.reference_frames)
        if expected.reference_clip
        else None,
    )
    return {
        metric.key: wrong_size if wrong_size and metric.needs_target else metric.score(pred, target)
        for metric in metrics
    }


@lru_cache(maxsize=2)  # a group needs one; 2 s at 256 px are 10 MB
def _target(data: str, clip_id: str) -> Sample:
    shards = open_shards(data)
    return Sample(shards.frames(clip_id), fps=FPS, audio=shards.audio(clip_id), name=clip_id)


@lru_cache(maxsize=2)  # shared by the methods of a pair
def _reference(data: str, clip_id: str, frames: tuple[int, ...]) -> Sample:
    return Sample(open_shards(data).frames(clip_id, list(frames)), fps=FPS, name=f"reference {clip_id}")


def _audio(path: Path) -> Any:
    try:
        return read_audio(path)
    except ClipError as error:
        if error.reason is Reason.NO_AUDIO:
            return None
        raise


def _plain(score: Score) -> dict[str, Any]:
    return {
        "value": score.value,
        "reason": score.reason.value if score.reason else None,
        "detail": score.detail,
        "n": score.n,
        "stats": {name: float(value) for name, value in score.stats.items()},
    }
