"""List every metric: what it measures, its unit and direction, what it needs, its cost, and whether it is usable here.

With KEY, show one metric: its options and their values, signature, source, pitfalls and BibTeX.

Examples:
    cmet-eval metrics
    cmet-eval metrics ssim:skimage
    cmet-eval metrics --format csv
"""

from __future__ import annotations

import csv
import inspect
import io
import json
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Annotated, Literal

import typer

from cmet_eval import completion
from cmet_eval.measuring.treatment import Treatment
from cmet_leaderboards.escaping import csv_cell, markdown
from cmet_metrics.availability import obstacle
from cmet_metrics.base import Metric
from cmet_metrics.record import QUICK_MS, UNITS, choices, cost_of
from cmet_metrics.registry import KEYS, get_metric, quick_metrics
from talking_face.pretrained.model_files import ModelFiles

Form = Literal["table", "json", "csv", "markdown"]
Fact = str | float | bool | list[str] | None
_PROFILES = {
    "embedded": "embedded, whose metrics need no download",
    "paper": "paper, whose metrics run the networks that papers use",
    "both": "both embedded and paper: it runs no network, or finds landmarks only",
}
_NARROW = 80  # columns of a terminal; below it, the facts of a metric follow its key in a list


def metrics(
    key: Annotated[
        str | None,
        typer.Argument(metavar="KEY", autocompletion=completion.metrics, help="the metric to show; default: list all"),
    ] = None,
    form: Annotated[
        Form, typer.Option("--format", metavar="NAME", help="form of the output: table, json, csv or markdown")
    ] = "table",
) -> None:
    files = ModelFiles.from_environment()
    if form == "table":
        width = shutil.get_terminal_size().columns
        print("\n".join(_list(files, width) if key is None else _details(get_metric(key, files), width)))
        return
    shown = [facts(get_metric(one, files)) for one in ([key] if key else KEYS)]
    if form == "json":
        print(json.dumps(shown[0] if key else shown, indent=1, ensure_ascii=False))
    else:
        print(_csv(shown) if form == "csv" else _markdown(shown), end="")


def facts(metric: Metric) -> dict[str, Fact]:
    """The facts of a metric as plain values, in the order of the columns."""
    problem = obstacle(metric)
    return {
        "key": metric.key,
        "title": metric.title,
        "measures": metric.summary,
        "unit": metric.unit,
        "better": _direction(metric),
        "needs": _needs(metric),
        "weights": list(metric.weights),
        "evaluator": metric.evaluator,
        "cost": cost_of(metric),
        "ms_per_frame": metric.ms_per_frame,
        "profile": metric.profile,
        "source": metric.source,
        "here": "ready" if problem is None else problem.state,
        "to_do": "" if problem is None else problem.text,
        "measured_by_default": metric.key in quick_metrics(),
        "signature": str(metric.signature()),
    }


def _direction(metric: Metric) -> str:
    if metric.ideal is not None:
        return f"nearer to {metric.ideal:g}"
    return "higher" if metric.higher_is_better else "lower"


def _needs(metric: Metric) -> list[str]:
    """The inputs in addition to the video that is measured."""
    needs = {
        "target": metric.needs_target,
        "sound": metric.needs_audio,
        "labels": metric.needs_labels,
        "reference": metric.needs_reference,
    }
    return [name for name, needed in needs.items() if needed]


# The list -------------------------------------------------------------------------------------------------------------


def _list(files: ModelFiles, width: int) -> Iterator[str]:
    """The lines of the list of all metrics, at most `width` columns wide where words allow."""
    title = ""
    yield from _head(width)
    for key in KEYS:
        metric = get_metric(key, files)
        if metric.title != title:
            title = metric.title
            yield title
        yield from _entry(metric, width)
    yield ""
    yield from _legend(width)


def _head(width: int) -> Iterator[str]:
    if width >= _NARROW:
        yield _row(("metric", "", "unit", "needs", "cost", "here"))


def _entry(metric: Metric, width: int) -> Iterator[str]:
    arrow = f"→{metric.ideal:g}" if metric.ideal is not None else "↑" if metric.higher_is_better else "↓"
    unit, needs = f"{metric.unit} {arrow}".strip(), ", ".join(_needs(metric)) or "-"
    problem = obstacle(metric)
    here, star = "ready" if problem is None else problem.state, "*" if metric.key in quick_metrics() else ""
    if width >= _NARROW:
        yield _row((f"  {metric.key}", star, unit, needs, cost_of(metric), here))
    else:
        yield f"  {metric.key} {star}".rstrip()
        yield from _wrapped(f"{unit}; needs {needs}; {cost_of(metric)}; {here}", width, 4)
    yield from _wrapped(metric.summary, width, 6)


def _row(cells: tuple[str, str, str, str, str, str]) -> str:
    key, star, unit, needs, cost, here = cells
    return f"{key:27} {star:1} {unit:11} {needs:15} {cost:7} {here}".rstrip()


def _legend(width: int) -> Iterator[str]:
    for line in (
        "* `cmet-eval measure` computes it by default.",
        "needs: what a metric reads in addition to the video: the real video (target), sound, labels, or reference "
        "frames.",
        f"cost: quick is at most {QUICK_MS:g} ms for a frame and its target at 256x256 on one core; slow is more; "
        "unknown is not measured.",
        *(f"{unit}: {text}." for unit, text in UNITS.items()),
        "here: ready, or what is absent on this machine; `cmet-eval metrics KEY` says how to get it.",
        "Options follow a key: `ssim:skimage,frames=linspace`. Your own metric class is `module:Class`.",
    ):
        yield from textwrap.wrap(line, max(width, 20), subsequent_indent="  ")


def _wrapped(text: str, width: int, indent: int) -> list[str]:
    return textwrap.wrap(text, max(width, indent + 20), initial_indent=" " * indent, subsequent_indent=" " * indent)


# One metric -----------------------------------------------------------------------------------------------------------


def _details(metric: Metric, width: int) -> Iterator[str]:
    """The lines about one metric."""
    problem = obstacle(metric)
    others = [key for key in KEYS if key.partition(":")[0] == metric.name and key != metric.key]
    took = (
        f", {metric.ms_per_frame:g} ms for a frame and its target at 256x256 on one core" if metric.ms_per_frame else ""
    )
    trained = f"evaluator {metric.evaluator}" if metric.evaluator else ""
    for name, text in (
        ("metric", metric.key),
        ("measures", f"{metric.title}: {metric.summary}"),
        ("unit", f"{metric.unit or 'none'}{_unit_note(metric)}; {_direction(metric)} is better"),
        ("needs", ", ".join(_needs(metric)) or "only the video"),
        ("weights", ", ".join(filter(None, (*metric.weights, trained))) or "none"),
        ("cost", f"{cost_of(metric)}{took}"),
        ("profile", _PROFILES[metric.profile]),
        ("here", "ready" if problem is None else problem.text),
        ("source", metric.source),
        ("signature", str(metric.signature())),
        ("treatment", _treatment(metric)),
        *(("option", text) for text in _options(metric)),
        ("pitfalls", metric.pitfalls),
        ("variants", ", ".join(others) or "no other"),
    ):
        yield from textwrap.wrap(
            f"{name:10} {text}",
            max(width, 40),
            subsequent_indent=" " * 11,
            break_on_hyphens=False,
            break_long_words=False,
        )
    yield ""
    for paragraph in inspect.cleandoc(type(metric).__doc__ or "").split("\n\n"):
        for item in re.split(r"\n(?=- )", paragraph):
            yield from textwrap.wrap(
                " ".join(item.split()), max(width, 40), subsequent_indent="  " if item.startswith("- ") else ""
            )
        yield ""
    yield metric.bibtex or "No paper defines this metric; cite the suite: `cmet-eval cite cmet-eval`."


def _unit_note(metric: Metric) -> str:
    return f" ({UNITS[metric.unit]})" if metric.unit in UNITS else ""


def _treatment(metric: Metric) -> str:
    """What result rows add to the signature: how the files were treated."""
    added = "|".join(f"{name}:{value}" for name, value in Treatment().fields(metric).items())
    return f"rows state it before the version; by default in `measure`: {added}"


def _options(metric: Metric) -> Iterator[str]:
    """For each option of the metric, its value here and the values that it can have."""
    for item in fields(metric):
        if item.name != "files":
            known = ("a whole number" if value is int else str(value) for value in choices(type(metric), item.name))
            yield f"{item.name}={getattr(metric, item.name)}, of: {', '.join(known)}"


# Files ----------------------------------------------------------------------------------------------------------------


def _csv(shown: Sequence[dict[str, Fact]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(shown[0])
    writer.writerows([csv_cell(_text(value)) for value in row.values()] for row in shown)
    return out.getvalue()


def _markdown(shown: Sequence[dict[str, Fact]]) -> str:
    columns = ("key", "measures", "unit", "better", "needs", "cost", "here")
    code: Callable[[str], str] = "`{}`".format
    rows = [[code(str(row["key"])), *(markdown(_text(row[name])) for name in columns[1:])] for row in shown]
    return "".join(f"| {' | '.join(row)} |\n" for row in (columns, ["---"] * len(columns), *rows))


def _text(value: Fact) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
