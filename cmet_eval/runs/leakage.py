"""Finds evaluators that were trained on clips that a method shows, because they must not score this method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cmet_metrics.base import Metric
from cmet_pipelines.shards import ShardSet
from talking_face.pretrained import trained_evaluators
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError


def unfair_metrics(method: Mapping[str, object], metrics: Sequence[Metric], shards: ShardSet) -> frozenset[str]:
    """Keys of the metrics that must not score the method.

    There are such metrics only if the method shows clips of the training split. They are the metrics whose evaluators
    were trained on this split.
    """
    if not method.get("trained_on_split"):
        return frozenset()
    asked = {(metric.evaluator, metric.files) for metric in metrics}
    known_to = {kind for kind, files in asked if kind is not None and knows_training_split(kind, shards, files)}
    return frozenset(metric.key for metric in metrics if metric.evaluator in known_to)


def knows_training_split(kind: trained_evaluators.Kind, shards: ShardSet, files: ModelFiles) -> bool:
    """Whether the evaluator was trained on clips of this training split, which some methods show.

    True if it was trained on this very shard set. Otherwise the function compares the clips whose ids also
    occur in the training data: True if the sound of one of them occurs there too. Ids alone do not suffice, because
    corpora that were drawn with another seed have the same ids but other sounds. At most as many clips are read as the
    evaluator was trained on. A training clip is not recognized if it has another id here, or other samples (for example
    because it was trimmed or resampled differently).

    Returns:
        False if there is no evaluator; the metric then has the reason missing-weights, which explains more.
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
