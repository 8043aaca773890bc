"""Defines the record of a metric: all facts about the metric that boards, calibration and commands need.

Each fact is an attribute. A metric class overrides a fact with a plain class attribute. If the fact depends on the
constructor's arguments, the class overrides the fact with a property.
"""

from __future__ import annotations

import math
import types
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from talking_face.names import did_you_mean
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import registry
from talking_face.pretrained.trained_evaluators import Kind
from talking_face.reasons import UserError

Profile = Literal["embedded", "paper"]
Cost = Literal["quick", "slow", "unknown"]
QUICK_MS = 20.0  # the largest `ms_per_frame` of a quick metric: 2 s of a pair, 50 frames, take at most a second
DEFAULT_FILES = ModelFiles()  # searches only the cache folder and the installed packages
LAST = 1000  # the default position on boards: after the metrics of this suite


# Units whose name does not say what they are -> what they are.
UNITS = {"% of eyes": "percent of the distance between the centres of the eyes"}


@dataclass(frozen=True)
class Variant:
    """One known variant of a metric class: a summary, and the constructor's arguments that create it."""

    summary: str  # one line for listings
    arguments: Mapping[str, object] = field(default_factory=dict)  # arguments that differ from the class's defaults


@dataclass(frozen=True, kw_only=True)
class MetricRecord(ABC):
    """The facts of a metric. The fields of the dataclass are the arguments of the constructor."""

    files: ModelFiles = DEFAULT_FILES  # where pretrained files and trained evaluators are searched for

    # The known variants by key, `name:variant`. The first variant of a name is its default. The key of a user's own
    # class is `module:Class`. If such a class has variants, commands use the first variant.
    variants: ClassVar[Mapping[str, Variant]] = {}
    counts_predictions: ClassVar[bool] = False  # True: the stats have entries `TRUTH>PREDICTION`
    judges_emotion: ClassVar[bool] = False  # True: shown first on boards if the pairs ask for an emotion
    measures_framing: ClassVar[bool] = False  # True: the value shows another crop than the ground truth's
    pitfalls: ClassVar[str] = ""  # what a reader must know before values are compared, for `cmet-eval metrics KEY`

    def __post_init__(self) -> None:
        for name, value in self.arguments.items():
            known = choices(type(self), name)
            if value not in known and type(value) not in known:
                raise UserError(f"{type(self).__name__}: {name}={value}; known: {_listed(known)}")

    # -- Names and origin ----------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of the metric family in keys and signatures, such as `m_lmd`."""

    @property
    @abstractmethod
    def title(self) -> str:
        """The name on boards, such as `M-LMD`."""

    @property
    def summary(self) -> str:
        """One line for listings. Without known variants, it is the first line of the class's docstring."""
        variant = type(self).variants.get(self._base_key)
        return variant.summary if variant else (type(self).__doc__ or "").strip().partition("\n")[0]

    @property
    def version(self) -> str:
        """Version of the computation. Raise it whenever a value can change."""
        return "1.0.0"

    @property
    def source(self) -> str:
        """Where the definition comes from: a paper's section, or a repository, its path and its commit."""
        return ""

    @property
    def bibtex(self) -> str:
        """BibTeX of the paper that defines the metric or its network; empty if there is no paper."""
        return ""

    # -- How to read the number ----------------------------------------------------------------------------------------

    @property
    def unit(self) -> str:
        """The unit, such as `dB` or `px`; empty for a ratio."""
        return ""

    @property
    @abstractmethod
    def higher_is_better(self) -> bool:
        """Whether higher values are better. Ignored if `ideal` is a number."""

    @property
    def ideal(self) -> float | None:
        """The best value, for metrics whose best value is neither the highest nor the lowest; else None."""
        return None

    @property
    def order(self) -> int:
        """A number that sets the position of the column on boards; the column with the lowest number is first."""
        return LAST

    @property
    def variants_are_protocols(self) -> bool:
        """Whether the variants of this name measure the same quantity. Boards then compare their rankings."""
        return True

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and the highest possible value; -inf and inf: no limit. Boards cut an interval at the limits."""
        return -math.inf, math.inf

    @property
    def profile(self) -> Profile | Literal["both"]:
        """The evaluator profile that this metric is part of.

        `embedded`: its network is in the package index or was trained on the corpus. `paper`: its network must be
        downloaded or obtained from its authors. `both`: it uses no network, or only dlib's or MediaPipe's landmarks.
        """
        return "both"

    # -- Needs ---------------------------------------------------------------------------------------------------------

    @property
    def needs_target(self) -> bool:
        """Whether `target` is read. If False, a clip without a ground truth can be scored."""
        return True

    @property
    def needs_audio(self) -> bool:
        """Whether the sound of the generated clip is read."""
        return False

    @property
    def needs_labels(self) -> bool:
        """Whether `pred.labels` is read."""
        return False

    @property
    def needs_reference(self) -> bool:
        """Whether `pred.reference` is read."""
        return False

    @property
    def ms_per_frame(self) -> float | None:
        """Processor time in ms for one frame of a clip and the same frame of its target; None: not measured.

        By `tests/benchmarks/metric_costs.py`, at 256x256. Metrics on the same landmarks find them only once.
        """
        return None

    @property
    def valid_in(self) -> frozenset[str]:
        """Names of settings in which the metric is valid, in addition to the settings whose files list it."""
        return frozenset()

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the pretrained files that the metric uses, from `talking_face/pretrained/weights.toml`."""
        return ()

    @property
    def evaluator(self) -> Kind | None:
        """The evaluator trained on the corpus, if the metric uses one. Its training clips get the reason trained-on."""
        return None

    # -- Claims that calibration tests ---------------------------------------------------------------------------------

    @property
    def worsened_by(self) -> frozenset[str]:
        """Names of degradations (`cmet_eval.calibration.degradations`) whose strongest step must worsen the value."""
        return frozenset()

    @property
    def unchanged_by(self) -> frozenset[str]:
        """Names of degradations whose strongest step must not move the value out of its noise band."""
        return frozenset()

    @property
    def measures_offset(self) -> bool:
        """Whether the value is the offset between picture and sound. The stats then contain `offset` with its sign."""
        return False

    @property
    def slow(self) -> bool:
        """Whether scoring a video takes seconds. Calibration then uses only the strongest step of each degradation."""
        return False

    # -- The key, which depends on the arguments -----------------------------------------------------------------------

    @property
    def arguments(self) -> dict[str, object]:
        """The constructor's arguments except `files`."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name != "files"}

    @property
    def key(self) -> str:
        """The name in commands and result rows: `ssim:skimage`, or `ssim:skimage,frames=linspace`.

        It starts with the known variant that has the most arguments in common with this metric. Then come the arguments
        that differ. A class without known variants and a user's own class have the key `module:Class`.
        """
        base = self._base_key
        if base not in type(self).variants:
            return base
        known = arguments_of(type(self), base)
        other = [f"{name}={value}" for name, value in self.arguments.items() if value != known[name]]
        return ",".join([base, *other])

    @property
    def variant(self) -> str:
        """The variant in signatures: the part after the colon of the known variant's key."""
        base = self._base_key
        return base.partition(":")[2] if base in type(self).variants else base.replace(":", ".")

    @property
    def _base_key(self) -> str:
        cls, mine = type(self), self.arguments
        same_name = [key for key in cls.variants if key.partition(":")[0] == self.name]
        # Commands do not know the variants of a user's own class.
        if not same_name or not cls.__module__.startswith("cmet_metrics."):
            return f"{cls.__module__}:{cls.__qualname__}"

        def different(key: str) -> int:
            return sum(mine[name] != value for name, value in arguments_of(cls, key).items())

        return min(same_name, key=different)


def packages_of(metric: MetricRecord) -> tuple[str, ...]:
    """Import names of the packages that the metric's networks need and that are not in the core installation."""
    of_weights = [package for name in metric.weights if name in registry() for package in registry()[name].packages]
    return tuple(dict.fromkeys([*of_weights, *(("torch", "safetensors") if metric.evaluator else ())]))


def cost_of(metric: MetricRecord) -> Cost:
    """`quick`: at most 20 ms per frame, so a pair of 50 frames takes at most a second. `slow`: more."""
    if metric.ms_per_frame is None:
        return "unknown"
    return "quick" if metric.ms_per_frame <= QUICK_MS else "slow"


@cache
def arguments_of(cls: type[MetricRecord], key: str) -> dict[str, object]:
    """All arguments of the known variant `key` of a class, except `files`."""
    defaults = {item.name: item.default for item in fields(cls) if item.name != "files"}
    return defaults | dict(cls.variants[key].arguments)


@cache
def choices(cls: type[MetricRecord], name: str) -> tuple[object, ...]:
    """The allowed values of the argument `name`. If the type `int` is among them, any positive integer is allowed."""
    return tuple(_choices(get_type_hints(cls)[name]))


def _choices(hint: object) -> Iterator[object]:
    if get_origin(hint) is Literal:
        yield from get_args(hint)
    elif get_origin(hint) in (Union, types.UnionType):
        for part in get_args(hint):
            yield from _choices(part)
    else:
        yield hint


def parse_options(cls: type[MetricRecord], key: str, options: str) -> dict[str, object]:
    """Parse options such as `frames=linspace,region=mouth` into arguments.

    Args:
        key: the whole key, for error messages.
        options: the part of the key after the first comma.

    Raises:
        UserError: the argument or its value is unknown; the message lists the known arguments or values.
    """
    names = [item.name for item in fields(cls) if item.name != "files"]
    out: dict[str, object] = {}
    for option in options.split(","):
        name, equals, text = option.partition("=")
        if name not in names:
            known = ", ".join(names) or "none"
            raise UserError(f"{key}: unknown option {name!r}{did_you_mean(name, names)}; known: {known}")
        if not equals:
            raise UserError(f"{key}: {name} has no value; give {name}=VALUE; known: {_listed(choices(cls, name))}")
        if name in out:
            raise UserError(f"{key}: {name} is given twice")
        out[name] = _parse_value(cls, key, name, text)
    return out


def _parse_value(cls: type[MetricRecord], key: str, name: str, text: str) -> object:
    known = choices(cls, name)
    for value in known:
        if str(value) == text:
            return value
    if int in known and text.isdecimal() and int(text) > 0:
        return int(text)
    raise UserError(f"{key}: unknown {name} {text!r}{did_you_mean(text, map(str, known))}; known: {_listed(known)}")


def _listed(known: tuple[object, ...]) -> str:
    return ", ".join("a whole number" if value is int else str(value) for value in known)
