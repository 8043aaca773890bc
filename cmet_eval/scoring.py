"""Scoring of one generated video against its pair's ground truth, as it runs in a worker's child.

The video is decoded once for all metrics, and landmarks are shared between them through the sample. Targets are kept in
a small cache a process, since the same ground truth comes up once for every method.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from cmet_eval.generation import file_sha256, open_shards, write_json
from metrics.base import Metric, Sample, Score
from metrics.registry import get_metric
from talking_face.clip import Pair
from talking_face.media.reading import probe, read_audio, read_frames
from talking_face.reasons import ClipError, Reason
from talking_face.signature import digest

FPS = 25.0
# What is done to a video that is not at the ground truth's rate, size or length. Part of the scores' key.
FRAME_RULE = "fps:nearest-25,size:as-is"


def scoring_key(video_sha256: str, pair: Pair, data_digest: str, signatures: Sequence[str], suite: str) -> str:
    """Digest of everything the scores of one video depend on."""
    return digest([video_sha256, pair.to_row(), data_digest, sorted(signatures), suite, FRAME_RULE])


def score_pair(
    video: str, pair: Pair, data: str, metric_keys: tuple[str, ...], key: str, out: str, known: dict[str, Any]
) -> dict[str, Any]:
    """Score one video and write the scores to `out` by an atomic rename.

    Args:
        video: path of the generated file; any container, rate and size.
        pair: its case.
        data: folder of the shard set that holds the ground truth.
        metric_keys: `name:variant`.
        key: what `scoring_key` gave, stored with the scores.
        out: JSON path.
        known: `codec` and `notes` from the generation record, where there is one.

    Returns:
        {"key", "codec", "notes", "video_sha256", "scores": [{"metric", "value", "reason", "detail", "n", "stats"}]}
    """
    path = Path(video)
    metrics = [get_metric(metric_key) for metric_key in metric_keys]
    notes: list[str] = list(known.get("notes", ()))
    codec = str(known.get("codec", ""))
    scores: dict[str, Score]
    try:
        info = probe(path)
        if info.video is None:
            raise ClipError(Reason.NO_VIDEO, f"{path.name} has no picture")
        codec = codec or f"{info.video.codec}-{info.video.pix_fmt}"
        # Rates such as 24.999 come from containers with coarse clocks.
        if abs(info.video.fps - FPS) > 0.01:
            notes.append(f"resampled from {info.video.fps:g} to {FPS:g} frames/s, nearest frame")
        scores = _scores(path, pair, data, metrics)
    except ClipError as error:
        scores = {metric.key: Score.missing(error.reason, error.detail) for metric in metrics}
    result = {
        "key": key,
        "pair_id": pair.pair_id,
        "codec": codec,
        "notes": notes,
        "video_sha256": file_sha256(path),
        "scores": [{"metric": name, **_plain(score)} for name, score in scores.items()],
    }
    write_json(Path(out), result)
    return result


def _scores(path: Path, pair: Pair, data: str, metrics: Sequence[Metric]) -> dict[str, Score]:
    if pair.ground_truth_clip is None:
        raise ClipError(Reason.NO_GROUND_TRUTH, f"{pair.pair_id} has no ground-truth clip")
    with_audio = any(getattr(metric, "needs_audio", False) for metric in metrics)
    target = _target(data, pair.ground_truth_clip)
    frames = read_frames(path, FPS)
    if frames.shape[1:3] != target.frames.shape[1:3]:
        (h, w), (gh, gw) = frames.shape[1:3], target.frames.shape[1:3]
        raise ClipError(
            Reason.SIZE_MISMATCH,
            f"{path.name} is {w}x{h}, the ground truth {gw}x{gh}; videos are scored as they are, so write that size",
        )
    pred = Sample(frames, fps=FPS, audio=_audio(path) if with_audio else None, name=path.name)
    return {metric.key: metric.score(pred, target) for metric in metrics}


# 8 targets of 2 s at 256 px are 80 MB with their landmarks: enough, as tasks come in the order of their ground truth.
@lru_cache(maxsize=8)
def _target(data: str, clip_id: str) -> Sample:
    shards = open_shards(data)
    return Sample(shards.frames(clip_id), fps=FPS, audio=shards.audio(clip_id), name=clip_id)


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
