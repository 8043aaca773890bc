"""Show the methods of the catalogue, or one with its published numbers; or set one up, so that it can run.

Examples:
    cmet-eval baselines list
    cmet-eval baselines show cmet
    cmet-eval baselines setup wav2lip --weights DIR
    cmet-eval baselines setup wav2lip --check
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, cast

import typer

from cmet_baselines.adapters.recipe import RecipeRun
from cmet_baselines.published import PublishedNumber, by_table, of_entry
from cmet_baselines.registry import MethodRecord, catalogue, describe, entry_to_set_up, readiness
from cmet_baselines.setup.request import Request
from cmet_baselines.setup.state import SEEDED
from cmet_eval import completion
from talking_face.names import printable
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import MissingWeights
from talking_face.reasons import UserError

KINDS = {
    "built-in": "Built into this suite",
    "python": "Python classes, each in its own process",
    "command": "Command lines",
    "videos": "Folders of videos",
    "recipe": "Released code of papers, after `baselines setup NAME`",
    "published": "Published numbers only; to run one, see `baselines show NAME` and docs/how_to/add_a_method.md",
}


class Action(StrEnum):
    """What to do."""

    LIST = "list"
    SHOW = "show"
    SETUP = "setup"


# long: typer turns each parameter into a command-line option
def baselines(
    action: Annotated[Action, typer.Argument(metavar="ACTION", help="list, show or setup")] = Action.LIST,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", autocompletion=completion.all_methods, help="the method to show, or a .toml of yours"
        ),
    ] = None,
    checkout: Annotated[
        Path | None, typer.Option(metavar="DIR", help="setup: your checkout of the repository; default: a clone")
    ] = None,
    weights: Annotated[Path | None, typer.Option(metavar="DIR", help="setup: the folder of the weight files")] = None,
    python: Annotated[
        Path | None, typer.Option(metavar="EXE", help="setup: an interpreter with the packages; default: a new one")
    ] = None,
    seeded: Annotated[
        bool, typer.Option("--seeded", help="setup: random weights, which only test that the code runs")
    ] = False,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="setup: cpu or cuda:0; default: a GPU if there is one")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=N", help="setup: a test-only limit of the recipe; repeatable")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="setup: forget the hashes of an earlier setup")] = False,
    check: Annotated[bool, typer.Option("--check", help="setup: print what is missing, and change nothing")] = False,
) -> None:
    given = (checkout, weights, python, device, *(option or ())), (seeded, fresh, check)
    if action is not Action.SETUP and (set(given[0]) != {None} or any(given[1])):
        raise UserError("the options are for `cmet-eval baselines setup NAME`")
    if action is Action.LIST and name:
        raise UserError(
            f"`baselines list` takes no NAME; `cmet-eval baselines show {printable(name)}` shows one method"
        )
    files = ModelFiles.from_environment()
    if action is Action.LIST:
        print(catalogue_text(files))
    elif not name:
        raise UserError(f"name the method: `cmet-eval baselines {action} NAME`; `cmet-eval baselines list` has them")
    elif action is Action.SHOW:
        print(method_text(name, files))
    else:
        request = Request(checkout, weights, python, seeded, _device(device), _options(option or []), fresh)
        _set_up(name, request, files, check)


def _set_up(name: str, request: Request, files: ModelFiles, check: bool) -> None:
    """Sets up a method or, with `check`, prints what is missing and exits with status 1 if something is."""
    from cmet_baselines.setup.steps import lacking, set_up

    entry = entry_to_set_up(name)
    if not check:
        state = set_up(entry, request, files, lambda line: print(line, flush=True))
        given = entry.name + SEEDED if state.seeded else name
        print(f"{given} is ready: cmet-eval run --method {given} --setting cross-emotion --data SHARDS")
        return
    lines = list(lacking(entry, request, files))
    print("\n".join(lines) or f"{entry.name + SEEDED if request.seeded else entry.name} is ready")
    raise typer.Exit(1 if lines else 0)


def _device(name: str | None) -> str | None:
    if name is not None and not re.fullmatch(r"cpu|cuda:\d{1,2}", name):
        raise UserError(f"--device {printable(name)} is neither cpu nor cuda:0, cuda:1 ...")
    return name


def _options(pairs: list[str]) -> dict[str, int]:
    """{key: number} of the texts `key=number`."""
    options = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if not re.fullmatch(r"\d{1,9}", value):
            raise UserError(f"--option {printable(pair)} should be KEY=NUMBER")
        options[key] = int(value)
    return options


def catalogue_text(files: ModelFiles) -> str:
    """The text of `baselines list`: all methods of the catalogue, grouped by the way they run."""
    lines = []
    for kind, title in KINDS.items():
        entries = [entry for entry in catalogue().values() if entry.kind == kind]
        if entries:
            lines.append(f"{title}:")
        for entry in entries:
            role = f" ({entry.role})" if entry.role != "method" else ""
            role += f" [{readiness(entry, files)}]" if entry.kind == "recipe" else ""
            lines.append(f"  {entry.name:20} {entry.summary}{role}\n{'':22} sees {', '.join(entry.sees)}")
    return "\n".join(lines)


def method_text(name: str, files: ModelFiles) -> str:
    """The text of `baselines show`: the record of a method, its example command, and its published numbers.

    Args:
        name: a name as `cmet_baselines.registry.get_method` accepts it.
        files: folders in which trained weights are searched for.

    Raises:
        UserError: the method is unknown, or its description has an error.
    """
    try:
        record = describe(name, files)
    except UserError as error:
        entry = catalogue().get(name)
        if entry is None or not (entry.kind == "recipe" or isinstance(error, MissingWeights)):
            raise
        why = "not set up here" if entry.kind == "recipe" else f"not trained here ({error})"
        facts = entry.model_dump(mode="json", exclude={"recipe"})
        record = cast(MethodRecord, facts | {"revision": f"{entry.revision}, {why}"})
    example = record.pop("example", None)
    lines = [f"{key:12} {_plain(value)}" for key, value in record.items() if value not in (None, "", [], (), {})]
    if example is not None:
        lines.append("\nA [command] as a start for your own .toml; nobody has run it here:\n[command]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in example.items() if value not in (None, "", {})]
    if (entry := catalogue().get(name)) is not None and entry.recipe is not None:
        lines.append(recipe_text(entry.recipe))
    if differences := departures_text(name):
        lines.append("\n" + differences)
    if name in catalogue() and (rows := of_entry(name)):
        lines.append("\n" + published_text(rows))
    return "\n".join(lines)


def recipe_text(recipe: RecipeRun) -> str:
    """The facts of a recipe: Python, deadline, training data, variants and test-only limits."""
    trained = [
        part.dataset
        + (f" ({', '.join(part.splits)})" if part.splits else "")
        + (f" without {', '.join(part.held_out)}" if part.held_out else "")
        for part in recipe.trained_on
    ]
    facts = {
        "python": recipe.python,
        "deadline": f"{recipe.deadline_s:g} s for a pair",
        "trained on": "; ".join(trained) or "not known",
        "forms": ", ".join(recipe.variants),
        "limits": "; ".join(f"{key}: {text}" for key, text in recipe.options.items()),
    }
    return "\n".join(f"{key:12} {value}" for key, value in facts.items() if value)


def departures_text(name: str) -> str:
    """The differences between a reference model and its paper, one line each; "" for other methods."""
    from cmet_reference.departures import PAGE, departures

    own = [d for d in departures() if d.model == name.removesuffix("-flow")]
    lines = [f"  {d.stage}, {d.topic} ({', '.join(d.configs)}): {d.theirs} Here: {d.ours}" for d in own]
    return "\n".join([f"Differences from the paper, with the settings that have them ({PAGE}):", *lines] if own else [])


def published_text(rows: list[PublishedNumber]) -> str:
    """The published numbers, grouped by paper and table, after a line that explains them."""
    lines = ["Published numbers, as the papers print them; none is comparable with ours (docs/reference/published.md):"]
    for (paper, table, dataset, setting), group in by_table(rows).items():
        lines.append(f"  {paper}, {_table(table)}, {dataset}, {setting}")
        for method in dict.fromkeys(row.method for row in group):
            numbers = ", ".join(_number(row) for row in group if row.method == method)
            lines.append(f"    {method}: {numbers}")
    return "\n".join(lines)


def _number(row: PublishedNumber) -> str:
    return f"{row.metric} {row.value:g}" + (f" (copied from {row.copied_from})" if row.copied_from else "")


def _table(name: str) -> str:
    return name if name.startswith("Fig") else f"Table {name}"


def _plain(value: object) -> str:
    """A value of a record as one line of text."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_plain(item)}" for key, item in value.items() if item not in (None, "", [], {}))
    if isinstance(value, list | tuple):
        tables = any(isinstance(item, Mapping) for item in value)
        return (" | " if tables else ", ").join(map(_plain, value))
    return str(value)
