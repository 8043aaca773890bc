"""Scores generated videos with every metric, in a worker's child process.

A video is decoded once for all metrics. The metrics share the landmarks that are stored in the `Sample`. The videos
of one task have the same ground truth, so that the landmarks of the ground truth are computed only once. This saves
time, because dlib's landmarks take about 25 ms per frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from cmet_eval.measuring.score_records import StoredScore, VideoScores, usable_scores, write_record
from cmet_eval.measuring.scoring import score_metric, stored_score
from cmet_eval.runs.generate import open_shards
from cmet_metrics.base import Labels, Metric, Sample, Score
from cmet_metrics.registry import get_metric
from cmet_pipelines.shards import ShardSet
from talking_face.clip import Pair
from talking_face.execution.calls import call_guarded
from talking_face.execution.messages import DAMAGED, Failure
from talking_face.execution.stage import allow_seconds, enter_stage
from talking_face.execution.task import TaskResult
from talking_face.files import unchanged
from talking_face.media import Limits, probe, read_frames, read_sound
from talking_face.media.reading import AUDIO_RATE, Sound, VideoInfo
from talking_face.media.sound import is_nearly_silent, level
from talking_face.names import storable
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import ClipError, Reason, UserError
from talking_face.signature import digest

FPS = 25.0
# The rule for a video that differs from its ground truth in frame rate, size or pixel shape. It is part of the scoring
# key.
FRAME_RULE = "fps:nearest-25,size:as-is,pixels:square"
# A video that is longer than twice its ground truth plus 10 s is not decoded.
_MAX_RATIO, _MORE_S = 2, 10.0
_MAX_BYTES = 2 << 30  # of the frames of one video; 10 s at 256x256 px take 50 MB
_SOUND_TOLERANCE_S = 0.2  # a larger difference between the lengths of sound and picture is noted
_NO_LABELS = Labels()
_START_S = 120.0  # s of a deadline for loading networks, which takes 10 s, and much longer from a network disk
_S_PER_FRAME = 2.0  # s of a deadline


@dataclass(frozen=True)
class Expected:
    """The fields of a pair that the metrics read in addition to the video.

    Labels, reference and ground truth stay empty if no metric reads them. So if several pairs have the same video, the
    video is scored only once. Such pairs are common for the method `ground-truth`.
    """

    ground_truth_clip: str | None
    labels: Labels = _NO_LABELS
    reference_clip: str | None = None
    reference_frames: tuple[int, ...] = ()  # indices of frames in the reference clip

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

    key: str  # result of `scoring_key`
    video: str
    video_sha256: str  # SHA-256 of the video, from which the key was computed
    expected: Expected
    out: str  # path of the JSON file for the scores; its name is the key
    metrics: tuple[str, ...]  # keys of the metrics
    deadline_s: float = 600.0


def scoring_key(video_sha256: str, expected: Expected, data_digest: str, how: Sequence[str]) -> str:
    """Digest of everything that the scores of one video depend on.

    `how` holds the signatures of the metrics and the version of the suite.
    """
    return digest([video_sha256, asdict(expected), data_digest, sorted(how), FRAME_RULE], 32)


def stored_scores(job: Job) -> VideoScores | None:
    """The scores that an earlier run stored with the same key; None if there are no such scores.

    Also None if a weight file was absent, a metric crashed, or the memory was not enough in the earlier run: since
    then, the user can have added the file, repaired the metric, or stopped another program.
    """
    stored = usable_scores(Path(job.out))
    if stored is None or stored.key != job.key:
        return None
    again = (Reason.MISSING_WEIGHTS.value, Reason.CRASHED.value, Reason.OUT_OF_MEMORY.value)
    return None if any(score.reason in again for score in stored.scores) else stored


def frame_counts(shards: ShardSet) -> dict[str, int]:
    """Clip id -> number of frames, for all clips of a shard set."""
    return {str(clip): int(n) for clip, n in shards.clips.set_index("clip_id")["n_frames"].items()}


def default_deadline(n_frames: int) -> float:
    """Seconds that a video with so many frames may take. All metrics together take 0.7 s per frame on a free core."""
    return _START_S + _S_PER_FRAME * n_frames


def score_group(jobs: Sequence[Job], data: str, files: ModelFiles) -> dict[str, Failure]:
    """Scores videos with the same ground truth; the landmarks of the ground truth are computed only once.

    The scores of each video are written before the next video is scored. If the process is killed, these scores are
    kept. Each video has its own deadline. The stage of the task is the key of the video.

    Returns:
        the failures of videos that could not be scored, by key.
    """
    failures = {}
    for job in jobs:
        if stored_scores(job) is None:
            enter_stage(job.key)
            allow_seconds(job.deadline_s)
            _, failure = call_guarded(score_video, (job, data, files))
            if failure is not None:
                failures[job.key] = failure
    return failures


def failures_of(result: TaskResult) -> dict[str, ClipError]:
    """The failures that `score_group` returned, by key; empty if the task itself failed.

    Raises UserError if a stored file that the videos need is damaged.
    """
    returned: dict[str, Failure] = result.value or {}
    if damaged := [detail for code, detail in returned.values() if code == DAMAGED]:
        raise UserError(damaged[0])
    return {key: ClipError(Reason(code), detail) for key, (code, detail) in returned.items()}


def score_video(job: Job, data: str, files: ModelFiles) -> VideoScores:
    """Scores one video and writes the scores to `job.out` by an atomic rename.

    If a metric raises an error, its score has no value and the reason `crashed`. The other metrics keep their values.

    Args:
        job: the video to score; any container, frame rate and size is accepted.
        data: folder of the shard set that contains the ground truth.
        files: folders in which the metrics' model files are searched for.

    Raises:
        ClipError: the video has not, or no longer, the content from which the key was computed. No scores are written.
    """
    with unchanged(Path(job.video), job.video_sha256):
        result = _video_scores(job, data, files)
    write_record(Path(job.out), result)
    return result


def _video_scores(job: Job, data: str, files: ModelFiles) -> VideoScores:
    path = Path(job.video)
    metrics = [get_metric(key, files) for key in job.metrics]
    notes: list[str] = []
    codec = ""
    scores: list[StoredScore]
    try:
        info = probe(path)
        if info.video is None:
            raise ClipError(Reason.NO_VIDEO, f"{path.name} has no picture")
        codec = f"{info.video.codec}-{info.video.pix_fmt}"
        # Write no note about 24.999 frames/s and similar values: some containers store times with low precision.
        if abs(info.video.fps - FPS) > 0.01:
            notes.append(f"resampled from {info.video.fps:g} to {FPS:g} frames/s, nearest frame")
        notes += info.video.notes
        scores = _scores(path, info.video, job.expected, data, metrics, notes)
    except ClipError as error:
        scores = [stored_score(metric.key, Score.missing(error.reason, error.detail)) for metric in metrics]
    folders = (path.parent, Path(data))
    scores = [replace(score, detail=storable(score.detail, folders=folders)) for score in scores]
    notes = [storable(note, folders=folders) for note in notes]
    return VideoScores(job.key, codec, notes, job.video_sha256, scores)


def _scores(
    path: Path, video: VideoInfo, expected: Expected, data: str, metrics: Sequence[Metric], notes: list[str]
) -> list[StoredScore]:
    target = _target(data, expected.ground_truth_clip) if expected.ground_truth_clip is not None else None
    wrong_size = _size_fault(path.name, (video.height, video.width), target)
    if wrong_size and all(metric.needs_target for metric in metrics):
        return [stored_score(metric.key, wrong_size) for metric in metrics]
    limits = limits_for(None if target is None else len(target.frames) / FPS)
    frames = read_frames(path, FPS, limits)
    wrong_size = _size_fault(path.name, frames.shape[1:3], target)
    pred = Sample(
        frames,
        fps=FPS,
        audio=_audio(path, limits, len(frames), notes) if any(metric.needs_audio for metric in metrics) else None,
        name=path.name,
        labels=expected.labels,
        reference=_reference(data, expected.reference_clip, expected.reference_frames)
        if expected.reference_clip
        else None,
    )
    return [
        stored_score(metric.key, wrong_size)
        if wrong_size and metric.needs_target
        else score_metric(metric, pred, target)
        for metric in metrics
    ]


def _size_fault(name: str, size: tuple[int, ...], target: Sample | None) -> Score | None:
    """The score of a video whose (height, width) differs from the ground truth's; None if the sizes are equal."""
    if target is None or size == target.frames.shape[1:3]:
        return None
    (h, w), (gh, gw) = size, target.frames.shape[1:3]
    return Score.missing(
        Reason.SIZE_MISMATCH,
        f"{name} is {w}x{h}, the ground truth {gw}x{gh}; videos are scored as they are, so write that size",
    )


@lru_cache(maxsize=2)  # 2 are enough, because a group of jobs has one ground truth; 2 s at 256 px take 10 MB
def _target(data: str, clip_id: str) -> Sample:
    shards = open_shards(data)
    return Sample(shards.frames(clip_id), fps=FPS, audio=shards.audio(clip_id), name=clip_id)


@lru_cache(maxsize=2)  # the videos of all methods for the same pair use the same reference frames
def _reference(data: str, clip_id: str, frames: tuple[int, ...]) -> Sample:
    return Sample(open_shards(data).frames(clip_id, list(frames)), fps=FPS, name=f"reference {clip_id}")


def limits_for(seconds: float | None) -> Limits:
    """The limits of the video of a pair. `seconds`: length of the ground truth, or None if it is not known."""
    limits = Limits(frame_bytes=_MAX_BYTES)
    return limits if seconds is None else replace(limits, seconds=_MAX_RATIO * seconds + _MORE_S)


def _audio(path: Path, limits: Limits, n_frames: int, notes: list[str]) -> np.ndarray | None:
    """The sound of a video of `n_frames` frames, or None. Doubts about the sound are added to `notes`."""
    try:
        sound = read_sound(path, limits=limits)
    except ClipError as error:
        if error.reason is Reason.NO_AUDIO:
            return None
        raise
    notes += (*sound.notes, *_doubts(sound, n_frames))
    return sound.samples


def _doubts(sound: Sound, n_frames: int) -> list[str]:
    doubts = []
    surplus = len(sound.samples) / AUDIO_RATE - n_frames / FPS
    if abs(surplus) > _SOUND_TOLERANCE_S:
        doubts.append(f"sound {abs(surplus):.2f} s {'longer' if surplus > 0 else 'shorter'} than the picture")
    if is_nearly_silent(sound.samples, AUDIO_RATE):
        doubts.append(f"nearly silent, level {level(sound.samples):.0f} of 32768")
    return doubts
