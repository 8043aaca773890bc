"""Finds scores that are unfair, because a metric's evaluator or a method was trained on the clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cmet_baselines.adapters.recipe import RecipeMethod
from cmet_metrics.base import Metric
from talking_face.clip import Pair
from talking_face.origin import origin_by_name
from talking_face.pretrained import trained_evaluators
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import ClipError, Reason, UserError

if TYPE_CHECKING:  # imports PyArrow
    from cmet_pipelines.shards import ShardSet


def unfair_metrics(method: Mapping[str, object], metrics: Sequence[Metric], shards: ShardSet) -> frozenset[str]:
    """Keys of the metrics that must not score the method.

    If the method shows clips of the training split, the result contains the metrics whose evaluator was trained on this
    split. Otherwise the result is empty.
    """
    if not method.get("trained_on_split"):
        return frozenset()
    asked = {(metric.evaluator, metric.files) for metric in metrics}
    known_to = {kind for kind, files in asked if kind is not None and knows_training_split(kind, shards, files)}
    return frozenset(metric.key for metric in metrics if metric.evaluator in known_to)


def knows_training_split(kind: trained_evaluators.Kind, shards: ShardSet, files: ModelFiles) -> bool:
    """Whether the evaluator was trained on clips of the training split of `shards`.

    True if the evaluator was trained on the same shard set. Otherwise the function looks for training clips of the
    evaluator whose ids are also in `shards`, and returns True if one of these clips has the same sound. Equal ids alone
    prove nothing: an embedded corpus with another seed has the same ids but other sounds. The function reads at most
    as many clips as the evaluator was trained on. A training clip is not recognized if its id or its sound samples
    differ in `shards`, for example because the clip was trimmed or resampled.

    Returns:
        False if there is no evaluator. The result rows of the metric then get the reason `missing-weights`.
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


def refuse_training_data(method: RecipeMethod, pair: Pair, shards: ShardSet) -> None:
    """Raises ClipError, trained-on, if the weights of a published method were trained on a clip of the pair.

    The catalogue states the datasets and their held-out speakers. A drawn clip with the name of a dataset is not a clip
    of this dataset.
    """
    wanted = {pair.reference_clip, pair.source_clip, pair.driving_clip, pair.ground_truth_clip}
    clips = shards.clips
    for clip in clips[clips["clip_id"].isin(wanted)].to_dict("records"):
        dataset, speaker, split = str(clip["dataset"]), str(clip["speaker"]), clip["split"]
        known_split = split if isinstance(split, str) else None
        for part in method.datasets:
            if part.has(dataset, speaker, known_split) and origin_by_name(dataset, speaker) != "drawn":
                others = f"; its held-out speakers are {', '.join(part.held_out)}" if part.held_out else ""
                raise ClipError(
                    Reason.TRAINED_ON, f"{method.name} was trained on {dataset}, so on {clip['clip_id']}{others}"
                )
