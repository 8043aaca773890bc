"""Defines the types that every metric uses: Score, Sample, Metric and Aggregate.

A metric compares two samples and returns a `Score`: a finite value, or a reason why there is no value. A list of scores
is combined into an `Aggregate`. An aggregate contains the mean, the coverage (n scored clips out of N expected clips)
and, for each reason, the number of clips without a value. An aggregate is computed from sums only. Therefore aggregates
of parts of the data can be merged, and the result does not depend on how the data were divided.
"""

from __future__ import annotations

import math
import numbers
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, cast

import numpy as np

from cmet_metrics.pictures import check_frames, check_levels, plain
from cmet_metrics.record import DEFAULT_FILES, MetricRecord, Profile, Variant
from talking_face.packages import how_to_install, is_of_an_extra
from talking_face.pretrained import trained_evaluators
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import MissingWeights
from talking_face.pretrained.trained_evaluators import Kind
from talking_face.reasons import ClipError, Reason
from talking_face.signature import Signature

__all__ = [
    "DEFAULT_FILES",
    "Aggregate",
    "Labels",
    "Metric",
    "Profile",
    "Sample",
    "Score",
    "Settings",
    "Variant",
    "check_pair",
]

T = TypeVar("T")
Settings = Mapping[str, str | int | float]  # fields of a signature

MIN_FRAMES = 2  # a clip with one frame is a picture and not a video


@dataclass(frozen=True)
class Score:
    """The result of one metric for one pair: either a finite value or the reason why there is no value."""

    value: float | None
    n: int  # number of units (usually frames) from which the value was computed
    reason: Reason | None = None
    detail: str = ""
    stats: Mapping[str, float] = field(default_factory=dict)  # can be added up over clips; the metric class lists them

    def __post_init__(self) -> None:
        if (self.value is None) == (self.reason is None):
            raise ValueError(f"a score has a value or a reason, got value={self.value}, reason={self.reason}")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"a score's value is finite, got {self.value}; use a Reason")

    @classmethod
    def missing(cls, reason: Reason, detail: str = "", stats: Mapping[str, float] | None = None) -> Score:
        """A score without a value, because of `reason`."""
        return cls(None, 0, reason, detail, stats or {})


@dataclass(frozen=True)
class Labels:
    """The labels of a pair. They are stored in the sample of the generated clip. None means unknown."""

    emotion: str | None = None  # the target emotion; one of talking_face.emotions.EMOTIONS or an extended label
    reference_emotion: str | None = None  # the emotion that the reference frames show
    speaker: str | None = None


@dataclass(frozen=True)
class Sample:
    """One clip, as the input of metrics. A sample is immutable, except its cache of results such as landmarks.

    To compute the landmarks of a target only once, use the same target sample for all methods of a pair.
    """

    frames: np.ndarray  # (T, H, W, 3) RGB; uint8, or float with values from 0 to 255; stored C-contiguous
    fps: float = 25.0
    audio: np.ndarray | None = None  # (N,) int16 mono, 16 kHz, sample 0 at the first frame
    name: str = "clip"  # the name of the clip in messages
    labels: Labels = Labels()
    reference: Sample | None = None  # the reference frames, for metrics with needs_reference
    dark: bool = False  # True states that float frames are in 0..255 although their largest value is below 4
    _cache: dict[Hashable, tuple[object, ClipError | None]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises TypeError or ValueError for frames, a rate or sound of another form; the message says what to write.

        Float frames are refused if their range is not clear: below 0, above 255, or all below 4 (as 0..1 is) unless
        `dark` is True. `cmet_metrics.arrays.as_sample` converts other arrays.
        """
        check_frames(self.frames, self.name)
        check_levels(self.frames, self.name, self.dark)
        check_rate(self.fps, self.name)
        if self.audio is not None:
            check_audio(self.audio, self.name)
        # OpenCV and MediaPipe do not read every stride, byte order and dtype.
        frames = np.ascontiguousarray(plain(self.frames))
        object.__setattr__(self, "frames", frames.astype(frames.dtype.newbyteorder("="), copy=False))

    @property
    def pictures(self) -> np.ndarray:
        """(T, H, W, 3) uint8: the frames for networks and landmarks. Floats are rounded, as in a PNG file."""
        if self.frames.dtype == np.uint8:
            return self.frames
        return self.cached("pictures", lambda s: np.clip(np.rint(s.frames), 0, 255).astype(np.uint8))

    def cached(self, key: Hashable, function: Callable[[Sample], T]) -> T:
        """The result of `function(self)`, computed once per key. A ClipError is stored, too, and raised again later."""
        if key not in self._cache:
            try:
                self._cache[key] = (function(self), None)
            except ClipError as error:
                self._cache[key] = (None, error)
        value, failure = self._cache[key]
        if failure is not None:
            raise failure
        return cast(T, value)

    def known(self, key: Hashable) -> object | None:
        """The result that `cached` stored for the key; None if there is none, or an error."""
        return self._cache.get(key, (None, None))[0]

    def copy_cached(self, other: Sample, keep: Callable[[Hashable], bool]) -> None:
        """Copy results from the cache of the sample `other`, for all keys for which `keep` returns True."""
        self._cache.update({key: value for key, value in other._cache.items() if keep(key)})


@dataclass(frozen=True)
class Aggregate:
    """The mean over clips and its coverage: `n` of `N` clips. `by_reason` counts clips without a value by reason."""

    mean: float | None  # None if it cannot be computed
    n: int
    N: int
    infinite: int  # number of clips without a value because they are identical to the target (infinite PSNR)
    by_reason: Mapping[str, int]
    sums: Mapping[str, float]  # sums of value, value_squared and all stats; `values` is the number of values

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1) of the clips' values; None if there are fewer than two values."""
        n = self.sums.get("values", 0)
        if n < 2:
            return None
        spread = self.sums["value_squared"] - self.sums["value"] ** 2 / n
        return math.sqrt(max(0.0, spread) / (n - 1))

    def __str__(self) -> str:
        mean = "-" if self.mean is None else f"{self.mean:.4g}"
        lost = ", ".join(f"{count} {reason}" for reason, count in sorted(self.by_reason.items()))
        return f"{mean} ({self.n} of {self.N}{'; ' + lost if lost else ''})"


@dataclass(frozen=True, kw_only=True)
class Metric(MetricRecord):
    """A metric: its facts, the method that scores a clip, and the methods that compute the mean over clips.

    A subclass defines the facts of `MetricRecord` and the methods `settings` and `compute`.
    """

    @abstractmethod
    def settings(self) -> Settings:
        """The fields of the signature between `variant` and `version`. They state everything that changes a value."""

    @abstractmethod
    def compute(self, pred: Sample, target: Sample) -> Score:
        """The score of two samples that passed `check_pair`. Raises ClipError or MissingWeights.

        If `needs_target` is False, `target` is the same object as `pred`, so the value cannot depend on a ground truth.
        """

    def signature(self) -> Signature:
        """`name|variant:...|...|version:...`. Two scores are comparable only if their signatures are equal."""
        return Signature(self.name, {"variant": self.variant, **self.settings(), "version": self.version})

    def score(self, pred: Sample, target: Sample | None) -> Score:
        """Score one clip against its ground truth.

        Args:
            pred: the generated clip.
            target: the real clip, or None if there is none.

        Returns:
            a score with a value or with a reason; `check_pair` and the metric's class list the reasons. If a model
            file or the package that runs it is missing, the score has the reason `missing-weights`, and no error is
            raised, so that other metrics can still be computed. If the metric needs a target and `target` is None, the
            reason is `no-ground-truth`.
        """
        try:
            if not self.needs_target:
                target = pred
            if target is None:
                raise ClipError(Reason.NO_GROUND_TRUTH, "the pair has no ground-truth clip")
            check_pair(pred, target)
            if self.evaluator is not None:
                check_held_out(self.evaluator, pred, target, self.files)
            return self.compute(pred, target)
        except ClipError as error:
            return Score.missing(error.reason, error.detail)
        except MissingWeights as error:
            return Score.missing(Reason.MISSING_WEIGHTS, str(error))
        except ModuleNotFoundError as error:
            if error.name is None or not is_of_an_extra(error.name):
                raise
            how = f"{self.key} needs {error.name}; run `{how_to_install(error.name)}`"
            return Score.missing(Reason.MISSING_WEIGHTS, how)

    def aggregate(self, scores: Iterable[Score], expected: int | None = None) -> Aggregate:
        """The mean over clips, with coverage.

        Args:
            scores: one score per clip.
            expected: the expected number of clips. Clips without a score count as `missing-output`.
        """
        n = total = infinite = 0
        by_reason: dict[str, int] = {}
        terms: dict[str, list[float]] = {}
        for score in scores:
            total += 1
            if score.reason is not None:
                by_reason[score.reason.value] = by_reason.get(score.reason.value, 0) + 1
                infinite += score.reason is Reason.INFINITE
            if score.value is not None:
                terms.setdefault("values", []).append(1.0)
                terms.setdefault("value", []).append(score.value)
                terms.setdefault("value_squared", []).append(score.value**2)
            if self.enters(score):
                n += 1
                for key, value in score.stats.items():
                    terms.setdefault(key, []).append(value)
        if expected is not None and expected < total:
            raise ValueError(f"{total} scores where {expected} were expected")
        if expected is not None and expected > total:
            gone = Reason.MISSING_OUTPUT.value
            by_reason[gone] = by_reason.get(gone, 0) + expected - total
            total = expected
        sums = {key: math.fsum(values) for key, values in sorted(terms.items())}
        return Aggregate(self.mean_of(sums), n, total, infinite, dict(sorted(by_reason.items())), sums)

    def merge(self, parts: Sequence[Aggregate]) -> Aggregate:
        """The aggregate of all clips, from the aggregates of disjoint parts.

        The merged aggregate equals the result of `aggregate` over all clips, except for rounding.
        """
        by_reason: dict[str, int] = {}
        terms: dict[str, list[float]] = {}
        for part in parts:
            for reason, count in part.by_reason.items():
                by_reason[reason] = by_reason.get(reason, 0) + count
            for key, value in part.sums.items():
                terms.setdefault(key, []).append(value)
        sums = {key: math.fsum(values) for key, values in sorted(terms.items())}
        return Aggregate(
            self.mean_of(sums),
            sum(part.n for part in parts),
            sum(part.N for part in parts),
            sum(part.infinite for part in parts),
            dict(sorted(by_reason.items())),
            sums,
        )

    def enters(self, score: Score) -> bool:
        """Whether a clip is included in `n` and in the sums of the stats. Default: True for clips with a value."""
        return score.value is not None

    @property
    def pooled(self) -> bool:
        """Whether the mean over clips is computed from the sums of the clips' stats, not from the clips' values."""
        return type(self).mean_of is not Metric.mean_of

    def mean_of(self, sums: Mapping[str, float]) -> float | None:
        """The mean, computed from the sums. By default, this is the mean of the clips' values, with equal weights."""
        return sums["value"] / sums["values"] if sums.get("values") else None


def check_pair(pred: Sample, target: Sample) -> None:
    """Check the conditions that all metrics require.

    Raises ClipError with reason too-short, rate-mismatch or not-finite.
    """
    for sample in (pred, target):
        if len(sample.frames) < MIN_FRAMES:
            raise ClipError(Reason.TOO_SHORT, f"{sample.name} has {len(sample.frames)} frame(s); {MIN_FRAMES} needed")
    if pred.fps != target.fps:
        raise ClipError(
            Reason.RATE_MISMATCH,
            f"{pred.name} has {pred.fps:g} frames/s, {target.name} {target.fps:g}; the rates have to be equal",
        )
    for sample in (pred, target):
        if sample.frames.dtype != np.uint8 and not np.isfinite(sample.frames).all():
            raise ClipError(Reason.NOT_FINITE, f"{sample.name} has NaN or infinite pixels")


def check_held_out(kind: Kind, pred: Sample, target: Sample, files: ModelFiles) -> None:
    """Raises ClipError with reason trained-on if `pred` or `target` is in the evaluator's training data.

    A clip is recognized by its name or its sound. If the evaluator was trained on the ground truth, the generated video
    gets no value either.
    """
    trained_on = trained_evaluators.find(kind, files).trained_on
    for sample in (pred, target):
        if trained_on.holds(sample.name, sample.audio):
            raise ClipError(Reason.TRAINED_ON, f"the corpus's {kind} evaluator was trained on {sample.name}")


def check_same_size(pred: Sample, target: Sample, at_least: int = 1) -> None:
    """Raises ClipError size-mismatch unless both clips have the same height and width, at least `at_least` px each."""
    a, b = pred.frames.shape[1:3], target.frames.shape[1:3]
    if a != b:
        raise ClipError(
            Reason.SIZE_MISMATCH,
            f"{pred.name} is {a[1]}x{a[0]}, {target.name} {b[1]}x{b[0]}; the sizes have to be equal",
        )
    if min(a) < at_least:
        raise ClipError(Reason.SIZE_MISMATCH, f"{pred.name} is {a[1]}x{a[0]}; at least {at_least}x{at_least} needed")


def check_rate(fps: float, name: str) -> None:
    """Raises ValueError unless `fps` is a positive number of frames/s."""
    if isinstance(fps, bool) or not isinstance(fps, numbers.Real) or not math.isfinite(fps) or fps <= 0:
        raise ValueError(f"{name}: fps must be the frames/s of the clip, for example fps=25, got {fps!r}")


def check_audio(audio: np.ndarray, name: str) -> None:
    """Raises ValueError unless `audio` is (N,) int16."""
    if not isinstance(audio, np.ndarray) or audio.ndim != 1 or audio.dtype != np.int16:
        found = f"{audio.shape} {audio.dtype}" if isinstance(audio, np.ndarray) else type(audio).__name__
        raise ValueError(
            f"{name}: audio must be (N,) int16, mono, 16 kHz, got {found}; as_audio(audio, rate=..., "
            "value_range=(-1, 1)) converts it"
        )
