"""Checks what a command was given before the command reads data, loads weights or writes: paths, names, devices.

Each check raises UserError with one line that says what to type instead.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from talking_face.files import check_writable
from talking_face.lines import one_line
from talking_face.names import did_you_mean, printable
from talking_face.packages import need_extras, require
from talking_face.reasons import UserError

if TYPE_CHECKING:
    from cmet_eval.runs.metrics import Scoring
    from cmet_metrics.base import Metric
    from cmet_metrics.registry import Profile
    from talking_face.pretrained.model_files import ModelFiles

_CARD = "dataset.json"  # the file that makes a folder a shard set
ALL = "all"  # in place of the name of a split: every clip


# -- files and folders -------------------------------------------------------------------------------------------------


def check_folder(path: Path, option: str) -> None:
    """Raises UserError if `path` is not a folder. `option` is the word on the command line that names it."""
    _check_path(path, path.is_dir(), "folder", f"name it with {option}")


def check_file(path: Path, option: str) -> None:
    """Raises UserError if `path` is not a file."""
    _check_path(path, path.is_file(), "file", f"name it with {option}")


def check_shards(path: Path, option: str = "--data") -> None:
    """Raises UserError if `path` is not the folder of a shard set; a run's folder is pointed to its shards."""
    _check_path(path, path.is_dir(), "folder", f"name a shard set with {option}")
    if not (path / _CARD).exists():
        inner = next((place for place in (path / "shards", path.parent) if (place / _CARD).is_file()), None)
        hint = f"name {inner} with {option}" if inner else "`cmet-eval preprocess` makes a shard set"
        raise UserError(f"{printable(str(path))} holds no shards ({_CARD} is missing); {hint}")


def check_out(out: Path, option: str, inputs: Mapping[str, Path | None] | None = None) -> None:
    """Raises an error if the output folder cannot be written, is an input of the command, or is a shard set.

    Args:
        out: the folder; it may be absent.
        option: the word on the command line that names it.
        inputs: word on the command line -> the folder that it names.
    """
    check_writable(out)
    for name, folder in (inputs or {}).items():
        if folder is not None and out.exists() and folder.exists() and out.samefile(folder):
            raise UserError(f"{printable(str(out))} is the folder of {name}; name another folder with {option}")
    if (out / _CARD).exists():
        raise UserError(f"{printable(str(out))} is a shard set; name another folder with {option}")


def check_pairs_of(run: Path, setting: str) -> Path:
    """The pair list of a setting in a run's folder. Raises UserError if there is none."""
    path = run / "pairs" / f"{setting}.parquet"
    if not path.is_file():
        known = sorted(place.stem for place in (run / "pairs").glob("*.parquet"))
        there = f"there are {', '.join(known)}" if known else "`cmet-eval run` makes them"
        raise UserError(
            f"{run} has no pairs of the setting {printable(setting)}{did_you_mean(setting, known)}; {there}"
        )
    return path


def _check_path(path: Path, right: bool, kind: str, remedy: str) -> None:
    if right:
        return
    name = printable(str(path))
    if path.exists():
        raise UserError(f"{name} is a {'folder' if path.is_dir() else 'file'}, not a {kind}; {remedy}")
    raise UserError(f"no {kind} {name}{similar_path(path)}; {remedy}")


def similar_path(path: Path) -> str:
    """The text `; did you mean PATH`, with the most similar path in the same folder; "" if none is similar."""
    try:
        known = [place.name for place in path.parent.iterdir()]
    except OSError:
        return ""
    hint = did_you_mean(path.name, known).removesuffix("?")
    return hint.replace(" mean ", f" mean {path.parent}/", 1) if path.parent != Path() else hint


# -- names -------------------------------------------------------------------------------------------------------------


def check_choice(name: str, known: Collection[str], option: str) -> None:
    """Raises UserError if `name` is not one of the known values of an option."""
    if name not in known:
        raise UserError(f"{option} {printable(name)}{did_you_mean(name, known) or ';'} there are {', '.join(known)}")


def check_split(split: str | None, data: Path | None) -> None:
    """Raises UserError if the shard set has no clip in this split.

    Args:
        split: name of the split; None and `all` are always right.
        data: the shard set; None: the embedded corpus, which need not be there.
    """
    if split is None or split == ALL:
        return
    if data is None:
        from cmet_pipelines.splits import split_names

        known = split_names("embedded")
    else:
        from cmet_pipelines.shards import ShardSet

        known = sorted(map(str, ShardSet(data).clips["split"].dropna().unique()))
    check_choice(split, [*known, ALL], "--split")


def check_method_name(name: str) -> None:
    """Raises UserError if a user's own method cannot have this name on a board."""
    from cmet_baselines.registry import catalogue

    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name):
        raise UserError(f"--method-name {name!r} may hold a-z, 0-9, '.' and '-' only; --title takes any text")
    if name in catalogue():
        raise UserError(f"{name} is a method of the catalogue; give your videos another --method-name")


def check_methods(names: Iterable[str], files: ModelFiles, trained_later: bool = False) -> None:
    """Raises UserError if a method is unknown or cannot be run.

    Args:
        names: see `cmet_baselines.registry.get_method`.
        files: where the checkpoints of the reference models are searched for.
        trained_later: whether the command trains these checkpoints, if they are absent.
    """
    from cmet_baselines.registry import get_method
    from talking_face.pretrained.store import MissingWeights

    for name in names:
        try:
            get_method(name, files)
        except MissingWeights:
            from cmet_eval.demo import STAGES

            if not trained_later or name not in STAGES:
                raise


def check_metrics(keys: Sequence[str], files: ModelFiles, profile: Profile | None = None) -> list[Metric]:
    """The metrics with these keys. Raises UserError if one is unknown, or if they have no profile in common."""
    from cmet_metrics.registry import common_profile, get_metric

    metrics = [get_metric(key, files) for key in keys]
    common_profile(keys, profile)
    return metrics


def absent_model_files(metrics: Iterable[Metric], files: ModelFiles, trained_later: bool = False) -> tuple[str, ...]:
    """One line for each model file that is not on this machine, with the metrics that need it and how to get it.

    Args:
        metrics: the metrics that are asked for.
        files: where model files are searched for.
        trained_later: whether the command itself trains the evaluators.
    """
    from talking_face.pretrained import store, trained_evaluators

    needed: dict[str, set[str]] = {}
    for metric in metrics:
        for name in metric.weights:
            if not store.is_here(name, files):
                needed.setdefault(store.missing_message(store.weight(name)), set()).add(metric.key)
        if metric.evaluator is not None and not trained_later:
            try:
                trained_evaluators.find(metric.evaluator, files)
            except store.MissingWeights as error:
                needed.setdefault(str(error), set()).add(metric.key)
    return tuple(f"{', '.join(sorted(keys))}: {one_line(text)}" for text, keys in sorted(needed.items()))


def check_run(
    methods: Sequence[str],
    settings: Sequence[str] | None,
    metrics: Sequence[str] | None,
    profile: Profile | None,
    data: Path | None,
    split: str | None = None,
) -> None:
    """Checks what `cmet-eval run` was given. Prints a line on standard error for each model file that is absent.

    The quick checks are first, so that a wrong name of a method ends the command within about a second.

    Args:
        methods, settings: as in `cmet_eval.runs.evaluate.run`; settings None: the default settings.
        metrics, profile: as in `Scoring`.
        data: the shard set; None: the run makes the embedded corpus and trains on it.
        split: see `check_split`.
    """
    from talking_face.pretrained.model_files import ModelFiles

    check_split(split, data)  # first, because some methods import torch
    check_methods(methods, ModelFiles.from_environment(data), trained_later=data is None)
    from cmet_eval import demo
    from cmet_eval.protocol.setting import get_setting
    from cmet_eval.runs.evaluate import DEFAULT_SETTINGS
    from cmet_eval.runs.metrics import Scoring

    scoring = Scoring(metrics, profile)
    files = scoring.model_files(data or demo.FOLDER / "shards")
    if data is None and not scoring.metrics and not scoring.profile:
        scoring = replace(scoring, metrics=demo.METRICS)
    rules = [get_setting(name) for name in settings or DEFAULT_SETTINGS]
    wanted = {metric for setting in rules for metric in scoring.in_setting(setting, files)}
    if data is None:
        need_extras("`cmet-eval run` without --data", "reference")
    tell_absent(absent_model_files(wanted, files, trained_later=data is None))


def check_score(method_name: str, pattern: str, scoring: Scoring, data: Path) -> None:
    """Checks the names that `cmet-eval score` was given, and the folder of shards.

    Args:
        method_name: the user's name for the method.
        pattern: form of the videos' file names; see `cmet_eval.runs.submissions.video_name`.
        scoring: the metrics.
        data: the shard set.
    """
    from cmet_eval.runs.submissions import check_video_pattern

    check_method_name(method_name)
    check_video_pattern(pattern)
    check_metrics(scoring.metrics or (), scoring.model_files(data), scoring.profile)
    check_shards(data)


def tell_absent(lines: Iterable[str]) -> None:
    """Prints the lines of `absent_model_files` on standard error."""
    for line in lines:
        print(f"{line} Until then, these scores get the reason missing-weights.", file=sys.stderr)


# -- the machine -------------------------------------------------------------------------------------------------------


def check_device(device: str) -> None:
    """Raises UserError if torch has no such device here.

    Args:
        device: auto, cpu, cuda or cuda:N.
    """
    if device in ("auto", "cpu"):
        return
    if not re.fullmatch(r"cuda(:\d+)?", device):
        raise UserError(f"--device {printable(device)}: there are auto, cpu, cuda and cuda:N")
    cuda = require("torch", "--device", "reference").cuda
    count = cuda.device_count() if cuda.is_available() else 0
    if int(device.partition(":")[2] or 0) >= count:
        seen = f"torch sees {count} CUDA device{'' if count == 1 else 's'} here" if count else "torch sees no CUDA here"
        raise UserError(f"--device {device}: {seen}; write --device cpu, or leave --device out")


def check_precision(device: str) -> None:
    """Raises UserError if fp16 cannot be used on the device: only a GPU has it.

    Args:
        device: see `check_device`.
    """
    if device == "cpu" or not require("torch", "--precision", "reference").cuda.is_available():
        raise UserError("--precision fp16 needs a GPU; write --precision bf16 or fp32")
