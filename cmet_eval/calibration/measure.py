"""Computes every metric on degraded clips."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cmet_eval.calibration.answers import BASE, EVALUATOR, NO_STEP, NOT_MAKEABLE, SOUND_ONLY, STAND_IN, Answer, label
from cmet_eval.calibration.degradations import (
    DEGRADATIONS,
    NOISE,
    CalibrationClip,
    Degradation,
    NotMakeable,
    Step,
    as_written,
    stand_in,
)
from cmet_metrics.base import Metric, Sample, Score
from cmet_metrics.landmarks import give_mesh, is_of_pictures, mediapipe_landmarks
from talking_face.media.reading import FPS
from talking_face.pretrained import trained_evaluators
from talking_face.pretrained.model_files import ModelFiles


def calibrate(
    clips: Iterable[CalibrationClip],
    metrics: Sequence[Metric],
    degradations: Sequence[Degradation] = DEGRADATIONS,
    noise: Sequence[Degradation] = NOISE,
    other_evaluators: Sequence[Path] = (),
) -> Iterable[Answer]:
    """Computes every metric on every degradation of every clip.

    A clip is first encoded as the suite encodes generated videos, so that PSNR is finite, and then degraded. The
    degraded clip is compared with the unchanged clip.

    Args:
        other_evaluators: folders of evaluators trained with other seeds. If such an evaluator changes an answer on the
            stand-in, this change is noise too.
    """
    for clip in clips:
        target = Sample(clip.frames, FPS, clip.audio, clip.name, clip.labels)
        written = replace(clip, frames=as_written(clip.frames))
        base = _sample(written, written.frames, written.audio)
        yield from _answers(written, BASE, NO_STEP, metrics, base, target)
        for how in degradations:
            yield from _degraded(written, how, how.name, metrics, base, target)
        if noise:
            yield from _noise(written, metrics, noise, other_evaluators, target)


def _noise(
    written: CalibrationClip,
    metrics: Sequence[Metric],
    noise: Sequence[Degradation],
    other_evaluators: Sequence[Path],
    target: Sample,
) -> Iterable[Answer]:
    """The answers on the stand-in, without and with each kind of noise."""
    clip = replace(written, frames=stand_in(written.frames))
    start = _sample(clip, clip.frames, clip.audio)
    yield from _answers(clip, STAND_IN, NO_STEP, metrics, start, target)
    for how in noise:
        yield from _degraded(clip, how, f"{STAND_IN}+{how.name}", metrics, start, target)
    trained = [metric for metric in metrics if metric.evaluator is not None]
    for folder in other_evaluators:
        seed = f"seed {trained_evaluators.find('syncnet', ModelFiles((folder,))).trained_on.seed}"
        others = [replace(metric, files=evaluators_first([folder], metric.files)) for metric in trained]
        yield from _answers(clip, f"{STAND_IN}+{EVALUATOR}", seed, others, start, target)


def evaluators_first(folders: Sequence[Path], files: ModelFiles) -> ModelFiles:
    """The same model files, but evaluators are searched for in `folders` first."""
    return replace(files, weights=(*folders, *files.weights))


def shifted_sound(clips: Iterable[CalibrationClip], metrics: Sequence[Metric]) -> Iterable[Answer]:
    """Computes the offset that each metric finds when the sound is shifted.

    To save time, the pictures of a clip are processed only once. The pictures are used as they are stored in the
    shards. If the clip has stored landmarks, these landmarks are used.
    """
    how = next(how for how in DEGRADATIONS if how.sound_only)
    measuring = [metric for metric in metrics if metric.measures_offset]
    for clip in clips:
        clip = replace(clip, group=clip.group + SOUND_ONLY)
        base = _sample(clip, clip.frames, clip.audio)
        if clip.mesh is not None:
            give_mesh(base, clip.mesh)
        yield from _answers(clip, BASE, NO_STEP, measuring, base, base)
        yield from _degraded(clip, how, how.name, measuring, base, base)


def _degraded(
    clip: CalibrationClip, how: Degradation, name: str, metrics: Sequence[Metric], base: Sample, target: Sample
) -> Iterable[Answer]:
    """The answers to every step of a degradation."""
    for step in how.steps:
        asked = [m for m in metrics if _asked(m, how, step, noise=name != how.name)]
        try:
            video = how.apply(clip, step)
        except NotMakeable:
            for metric in asked:
                yield Answer(metric.key, name, label(step), clip.group, clip.name, None, NOT_MAKEABLE, None)
            continue
        sample = _sample(clip, video.frames, video.audio)
        if how.sound_only and asked:
            mediapipe_landmarks(base, asked[0].files)
            sample.copy_cached(base, is_of_pictures)  # reuse the results of the unchanged pictures
        yield from _answers(clip, name, label(step), asked, sample, target)


def _asked(metric: Metric, how: Degradation, step: Step, noise: bool) -> bool:
    """Whether the metric is computed. A slow metric is computed only at the last step and for the noise band."""
    if how.sound_only:
        return metric.needs_audio
    return noise or not metric.slow or step == how.steps[-1]


def _sample(clip: CalibrationClip, frames: np.ndarray, audio: np.ndarray) -> Sample:
    return Sample(frames, FPS, audio, clip.name, clip.labels)


def _answers(
    clip: CalibrationClip, name: str, step: str, metrics: Sequence[Metric], sample: Sample, target: Sample
) -> Iterable[Answer]:
    for metric in metrics:
        score: Score = metric.score(sample, target)
        reason = score.reason.value if score.reason else ""
        yield Answer(metric.key, name, step, clip.group, clip.name, score.value, reason, score.stats.get("offset"))
