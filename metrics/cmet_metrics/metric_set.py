"""Computes several metrics in a validation loop, over any number of processes: `MetricSet`.

A set keeps the scores of every clip, and not only their sums. The aggregates are computed from all scores at the end,
with exact sums. Therefore the result does not depend on how the clips were divided among processes, nor on any order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cmet_metrics.base import Aggregate, Metric, Sample, Score
from cmet_metrics.registry import check_packages, get_metric
from talking_face.pretrained.model_files import ModelFiles


@dataclass(frozen=True)
class Scored:
    """The scores of one clip, in the order of the set's metrics."""

    target: str  # digest of the ground truth's frames; "" without a ground truth
    scores: tuple[Score, ...]

    @property
    def rank(self) -> tuple[str, ...]:
        """Orders the scores of one clip that two processes computed, so that always the same one is chosen."""
        return tuple(repr((score.value, score.n, score.reason, sorted(score.stats.items()))) for score in self.scores)


class MetricSet:
    """The scores of the clips of a validation loop.

    Use a new set for each epoch. A set can be pickled, so `torch.distributed.all_gather_object` can gather the sets of
    all processes. Networks are loaded at the first clip that needs them, once per process.

    Example:
        >>> import numpy as np
        >>> metrics = MetricSet(["psnr"])
        >>> black = Sample(np.zeros((2, 16, 16, 3), np.uint8))
        >>> scores = metrics.update(Sample(black.frames + np.uint8(51)), black, "clip-1")
        >>> {name: round(value, 3) for name, value in metrics.as_dict().items()}
        {'psnr:frame-mean': 13.979, 'psnr:frame-mean/n': 1.0, 'psnr:frame-mean/N': 1.0}
    """

    def __init__(self, keys: Sequence[str], files: ModelFiles | None = None) -> None:
        """
        Args:
            keys: keys of metrics, such as `psnr` or `ssim:skimage,frames=linspace`. An equal metric counts once.
            files: where pretrained files are searched for; None: in the folders that the environment names.

        Raises:
            UserError: a key is unknown; the message lists similar ones. Or a metric needs a package that is not
                installed; the message names the command that installs it.
            ValueError: there is no key.
        """
        if isinstance(keys, str) or not keys:
            raise ValueError(f"keys must be a list of metrics, for example ['psnr', 'ssim'], got {keys!r}")
        files = files or ModelFiles.from_environment()
        self.metrics: tuple[Metric, ...] = tuple(dict.fromkeys(get_metric(key, files) for key in keys))
        for metric in self.metrics:
            check_packages(metric)
        self._signatures = tuple(str(metric.signature()) for metric in self.metrics)
        self._clips: dict[str, Scored] = {}

    def __len__(self) -> int:
        """The number of clips."""
        return len(self._clips)

    def update(self, pred: Sample, target: Sample | None, id: str) -> dict[str, Score]:
        """Score one clip.

        Args:
            pred: the generated clip. `as_sample` makes it from an array or a tensor.
            target: the real clip; None if there is none. Metrics that need it then give the reason no-ground-truth.
            id: the name of the clip in the data set. Every clip has its own id, in all processes together.

        Returns:
            {key: score} of this clip.

        Raises:
            ValueError: this set already has a clip with this id.
            TypeError: a clip is not a Sample, or the id is not a text.
        """
        for clip in (pred,) if target is None else (pred, target):
            if not isinstance(clip, Sample):
                raise TypeError(f"a clip must be a Sample, got {type(clip).__name__}; write as_sample(x, ...)")
        if not isinstance(id, str):
            raise TypeError(f"the id of a clip is its name in the data set, a text, got {id!r}")
        if id in self._clips:
            raise ValueError(
                f"clip {id!r} is in this set already; give every clip its own id, and every epoch a new set"
            )
        scores = tuple(metric.score(pred, target) for metric in self.metrics)
        digest = "" if target is None else hashlib.sha256(target.frames.data).hexdigest()[:16]
        self._clips[id] = Scored(digest, scores)
        return {metric.key: score for metric, score in zip(self.metrics, scores, strict=True)}

    def merge(self, others: Iterable[MetricSet]) -> MetricSet:
        """A new set with the clips of this set and of all others. The result does not depend on their order.

        Samplers of several processes repeat clips, to give each process the same number. A clip of the same id and with
        the same ground truth counts once. If its scores differ, as the last digits of a network's output can, the same
        one of them is chosen in every order.

        Raises:
            ValueError: the sets have other metrics, or one id belongs to two clips: their ground truths differ, or
                there is no ground truth and their scores differ.
        """
        merged = MetricSet.__new__(MetricSet)
        merged.metrics, merged._signatures, merged._clips = self.metrics, self._signatures, dict(self._clips)
        for other in others:
            if other._signatures != self._signatures:
                ours, theirs = set(self._signatures), set(other._signatures)
                raise ValueError(
                    f"the sets have other metrics: {'; '.join(sorted(ours ^ theirs)) or 'in another order'}"
                )
            for id, scored in other._clips.items():
                known = merged._clips.get(id, scored)
                if known.target != scored.target or (not known.target and known.rank != scored.rank):
                    raise ValueError(
                        f"two clips have the id {id!r}; give every clip its own id, in all processes together"
                    )
                merged._clips[id] = min(known, scored, key=lambda one: one.rank)
        return merged

    def compute(self, expected: int | None = None) -> dict[str, Aggregate]:
        """{key: aggregate}: the mean over clips, the coverage and the reasons.

        Args:
            expected: the number of clips of the data set; clips that are absent count as `missing-output`.
        """
        columns = zip(*(self._clips[id].scores for id in sorted(self._clips)), strict=True) if self._clips else None
        found = list(columns) if columns is not None else [()] * len(self.metrics)
        return {
            metric.key: metric.aggregate(scores, expected) for metric, scores in zip(self.metrics, found, strict=True)
        }

    def as_dict(self, expected: int | None = None) -> dict[str, float]:
        """Flat names and numbers, for any logger: `KEY` is the mean, `KEY/n` and `KEY/N` are the coverage.

        A metric without a mean has only `KEY/n` and `KEY/N`. The argument is that of `compute`.
        """
        out: dict[str, float] = {}
        for key, total in self.compute(expected).items():
            if total.mean is not None:
                out[key] = total.mean
            out[f"{key}/n"], out[f"{key}/N"] = float(total.n), float(total.N)
        return out

    def scores(self) -> Mapping[str, Mapping[str, Score]]:
        """{id: {key: score}} of every clip, sorted by id."""
        keys = [metric.key for metric in self.metrics]
        return {id: dict(zip(keys, self._clips[id].scores, strict=True)) for id in sorted(self._clips)}
