"""Finds evaluators that were trained on the clips that a method shows: they may not judge it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cmet_metrics.base import Metric
from cmet_pipelines.shards import ShardSet
from talking_face.pretrained import trained_evaluators
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError


def unfair_metrics(method: Mapping[str, object], metrics: Sequence[Metric], shards: ShardSet) -> frozenset[str]:
    """Keys of the metrics whose evaluator was trained on the training split, where the method shows clips of it."""
    if not method.get("trained_on_split"):
        return frozenset()
    asked = {(metric.evaluator, metric.files) for metric in metrics}
    known_to = {kind for kind, files in asked if kind is not None and knows_training_split(kind, shards, files)}
    return frozenset(metric.key for metric in metrics if metric.evaluator in known_to)


def knows_training_split(kind: trained_evaluators.Kind, shards: ShardSet, files: ModelFiles) -> bool:
    """Whether the evaluator was trained on clips of this training split, which a method may show.

    It was if it knows a clip's id and, among the clips that it knows, a sound. Corpora drawn by the same rules have the
    same ids, so ids alone would exclude the evaluators of another seed. At most as many clips are read as it was
    trained on. Not found: a clip that it knows under another id, or that has other samples here (cut or resampled
    otherwise).

    Returns:
        False without an evaluator: the metric's own reason, missing-weights, explains more.
    """
    try:
        trained_on = trained_evaluators.find(kind, files).trained_on
    except (trained_evaluators.MissingWeights, UserError):
        return False
    if trained_on.data == shards.digest:
        return True
    clips = shards.clips
    both = sorted(set(clips.loc[clips["split"] == "train", "clip_id"]) & set(trained_on.clips))
    return any(trained_evaluators.sound_id(shards.audio(clip)) in trained_on.sounds for clip in both)
