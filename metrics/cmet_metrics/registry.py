"""Finds metrics by key: `name:variant`, `name:variant,option=value`, or `module:Class` for a user's own class.

Each metric file of this package lists its classes in `METRICS`, and each class lists its known keys in `variants`. A
new file in this package is found without a change in the registry.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_args

import cmet_metrics
from cmet_metrics.base import Metric, Profile
from cmet_metrics.record import DEFAULT_FILES, arguments_of, cost_of, packages_of, parse_options
from talking_face.names import did_you_mean
from talking_face.packages import how_to_install, is_installed
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError

DEFAULT_METRICS: tuple[str, ...] = ("psnr:frame-mean", "ssim:wang2004", "m_lmd:eat", "f_lmd:eat")
PROFILES: tuple[Profile, ...] = get_args(Profile)
_ABOVE = ("registry", "metric_set")  # modules that need the registry, so that it cannot import them
CORE_WEIGHTS = frozenset({"face_landmarker"})  # the pretrained files that the core installation contains


def _classes() -> Iterator[type[Metric]]:
    """The classes listed in `METRICS`, for every module of this package that has a tuple of this name."""
    for module in sorted(item.name for item in pkgutil.iter_modules(cmet_metrics.__path__)):
        if module not in _ABOVE:
            yield from getattr(importlib.import_module(f"cmet_metrics.{module}"), "METRICS", ())


def _made(cls: type[Metric], arguments: Mapping[str, Any], files: ModelFiles = DEFAULT_FILES) -> Metric:
    return cls(files=files, **arguments)


def _known() -> dict[str, Metric]:
    found = {key: _made(cls, arguments_of(cls, key)) for cls in _classes() for key in cls.variants}
    return dict(sorted(found.items(), key=lambda item: item[1].order))


_KNOWN = _known()
# Every known key and its class, in the order of boards. Variants of one class are in the order of its `variants`.
KEYS: dict[str, type[Metric]] = {key: type(metric) for key, metric in _KNOWN.items()}
_loaded: dict[str, type[Metric]] = {}  # a user's own classes by key, so that each module is imported only once
METRICS: tuple[Metric, ...] = tuple(_KNOWN.values())


def get_metric(key: str, files: ModelFiles = DEFAULT_FILES, *, imports: bool = True) -> Metric:
    """The metric with the key `key`.

    Args:
        key: a known key, such as `ssim:wang2004`, or a name, such as `ssim`, for the default variant. Options can
            follow, such as `ssim:skimage,frames=linspace`. The key of a user's own metric class is `module:Class`. The
            class is imported from the Python path or the current folder.
        files: where pretrained files and trained evaluators are searched for. A command creates this object once,
            with `ModelFiles.from_environment`. The default value has no folders and does not read the environment.
        imports: whether a user's own class can be imported. Use False for a key that was read from a file, because a
            file must not decide which code runs. The class is then found only if this process has already loaded it.

    Raises:
        UserError: the metric, option or value is unknown; the message lists similar or known names.
    """
    base, comma, options = key.partition(",")
    known = base if base in KEYS else default_variants().get(base)
    if known is None:
        if comma and (base in _loaded or _names_class(base)):
            raise UserError(f"--metrics {key}: a class of your own takes no options")
        if base not in _loaded and imports and not comma and (cls := _own_class(base)) is not None:
            _loaded[base] = cls
        if base not in _loaded or comma:
            raise UserError(f"no metric is called {key!r}{_hint(base)}")
        return _own_metric(_loaded[base], files)
    cls = KEYS[known]
    arguments = arguments_of(cls, known) | (parse_options(cls, key, options) if comma else {})
    return _made(cls, arguments, files)


def is_own(key: str) -> bool:
    """Whether the key belongs to a user's own class, `module:Class`, and not to a metric of this suite."""
    return key.partition(":")[0] not in default_variants()


def find_record(key: str) -> Metric | None:
    """The metric for the key of a result row; None if the metric's name is unknown.

    If only the variant is unknown, the default variant is returned. Boards use this function
    to find the facts of a metric, such as its title, for result rows from another version of the suite or from another
    user. The function imports no code.
    """
    for text in (key, key.partition(":")[0]):
        try:
            return get_metric(text, imports=False)
        except UserError:
            continue
    return None


def check_packages(metric: Metric) -> None:
    """Checks that the packages of a metric are installed, without importing one.

    Raises:
        UserError: a package is absent. The message names the command that installs it, and the variants of the same
            name that work without it.
    """
    absent = [package for package in packages_of(metric) if not is_installed(package)]
    if absent:
        others = (other for other in METRICS if other.name == metric.name and other.evaluator is None)
        usable = [other.key for other in others if all(map(is_installed, packages_of(other)))]
        instead = f", or take {' or '.join(usable)}" if usable else ""
        raise UserError(f"{metric.key} needs {absent[0]}; run `{how_to_install(absent[0])}`{instead}")


@cache
def default_variants() -> dict[str, str]:
    """{metric name: key of the default variant}. The default variant of a name is its first variant."""
    out: dict[str, str] = {}
    for key in KEYS:
        out.setdefault(key.partition(":")[0], key)
    return out


def in_profile(profile: Profile) -> tuple[str, ...]:
    """The keys of all metrics that are part of a profile."""
    return tuple(metric.key for metric in METRICS if metric.profile in ("both", profile))


@cache
def quick_metrics() -> tuple[str, ...]:
    """The keys of the metrics that any two videos can be measured with, in the order of boards: one key for each name.

    The key of a name is its first variant that is quick, that needs neither labels nor reference frames nor a trained
    evaluator, and whose pretrained files are in the core installation. Names without such a variant are left out.
    """
    out: dict[str, str] = {}
    for metric in METRICS:
        needs = metric.needs_labels or metric.needs_reference or metric.evaluator is not None
        if cost_of(metric) == "quick" and not needs and CORE_WEIGHTS.issuperset(metric.weights):
            out.setdefault(metric.name, metric.key)
    return tuple(out.values())


def common_profile(keys: Iterable[str], profile: Profile | None = None) -> Profile:
    """The profile that all these metrics are part of.

    Args:
        keys: the keys of the metrics.
        profile: the requested profile, or None. If all metrics are part of both profiles, the requested profile is
            returned; for None, `embedded` is returned.

    Raises:
        UserError: the metrics and `profile` have no profile in common.
    """
    profiles = ((get_metric(key).profile, key) for key in keys)
    only = {found: key for found, key in profiles if found != "both"} | ({profile: ""} if profile else {})
    if len(only) > 1:
        names = {name: key or "what --profile says" for name, key in only.items()}
        raise UserError(
            f"{names['embedded']} is of the embedded profile and {names['paper']} of paper, and one board never "
            "shows both; score them in two runs"
        )
    return next((found for found in PROFILES if found in only), "embedded")


def _own_metric(cls: type[Metric], files: ModelFiles) -> Metric:
    """A metric of a user's own class, with the arguments of its first variant if it has variants."""
    first = next(iter(cls.variants), None)
    arguments = arguments_of(cls, first) if first else {}
    return _made(cls, arguments, files) if "files" in inspect.signature(cls).parameters else cls()


def _names_class(key: str) -> bool:
    """Whether the key can only be `module:Class`: the class is capitalized, and the module is not a metric's name."""
    module, _, name = key.partition(":")
    identifiers = all(part.isidentifier() for part in (*module.split("."), name))
    return identifiers and name[0].isupper() and module not in default_variants()


def _own_class(key: str) -> type[Metric] | None:
    """The class of the key `module:Class`; None if the key has another form or its module does not exist.

    Raises UserError if the module cannot be imported, has the name of a metric of this suite, or does not contain the
    class, or if the class is not a `Metric`.
    """
    module, _, name = key.partition(":")
    if module.endswith(".py"):
        raise UserError(f"--metrics {key}: write the module's name without .py, {Path(module).stem}:{name}")
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        return None
    if module in default_variants():
        if name[0].isupper() and Path(f"{module}.py").is_file():
            raise UserError(f"--metrics {key}: {module} is a metric of this suite; give {module}.py another name")
        return None
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)  # at the end, so that files in the folder do not replace installed modules
    try:
        importlib.invalidate_caches()
        if importlib.util.find_spec(module) is None:
            return None
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and module.startswith(error.name):
            return None
        raise UserError(f"--metrics {key}: {module} cannot be imported ({error})") from error
    except Exception as error:
        raise UserError(f"--metrics {key}: {module} cannot be imported ({type(error).__name__}: {error})") from error
    classes = {text: cls for text, cls in vars(loaded).items() if isinstance(cls, type) and issubclass(cls, Metric)}
    if name not in classes:
        hint = did_you_mean(name, classes.keys() - {"Metric"})
        raise UserError(f"--metrics {key}: {module} has no class {name} that is a cmet_metrics.base.Metric{hint}")
    cls = classes[name]
    if missing := sorted(cls.__abstractmethods__):
        raise UserError(f"--metrics {key}: the class does not define {', '.join(missing)}")
    return cls


def _hint(key: str) -> str:
    if _names_class(key):
        return f"; there is no module {key.partition(':')[0]} on the Python path or in the current folder"
    names = default_variants()
    variants = [known for known in KEYS if known.partition(":")[0] == key.partition(":")[0]]
    return (
        did_you_mean(key.lower().replace("-", "_"), [*KEYS, *names], at_most=3)
        or (f"; did you mean {' or '.join(variants)}?" if variants else "")
        or f"; there are {', '.join(KEYS)}; or your own as module:Class"
    )
