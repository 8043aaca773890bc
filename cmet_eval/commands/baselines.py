"""Show the methods of the catalogue, or one of them with its published numbers.

Examples:
    cmet-eval baselines list
    cmet-eval baselines show cmet
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, cast

import typer

from cmet_baselines.published import PublishedNumber, by_table, of_entry
from cmet_baselines.registry import MethodRecord, catalogue, describe
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
    "published": "Published numbers only; to run one, see `baselines show NAME` and docs/how_to/add_a_method.md",
}


class Action(StrEnum):
    """What to do."""

    LIST = "list"
    SHOW = "show"


def baselines(
    action: Annotated[Action, typer.Argument(metavar="ACTION", help="list or show")] = Action.LIST,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", autocompletion=completion.all_methods, help="the method to show, or a .toml of yours"
        ),
    ] = None,
) -> None:
    if action is Action.LIST and name:
        raise UserError(
            f"`baselines list` takes no NAME; `cmet-eval baselines show {printable(name)}` shows one method"
        )
    if action is Action.LIST:
        print(catalogue_text())
    elif name:
        print(method_text(name, ModelFiles.from_environment()))
    else:
        raise UserError("name the method to show; `cmet-eval baselines list` has them")


def catalogue_text() -> str:
    """The text of `baselines list`: all methods of the catalogue, grouped by the way they run."""
    lines = []
    for kind, title in KINDS.items():
        entries = [entry for entry in catalogue().values() if entry.kind == kind]
        if entries:
            lines.append(f"{title}:")
        for entry in entries:
            role = f" ({entry.role})" if entry.role != "method" else ""
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
    except MissingWeights as error:
        if (entry := catalogue().get(name)) is None:  # a user's own file
            raise
        record = cast(MethodRecord, entry.model_dump(mode="json") | {"revision": f"not trained here ({error})"})
    example = record.pop("example", None)
    lines = [f"{key:12} {_plain(value)}" for key, value in record.items() if value not in (None, "", [], (), {})]
    if example is not None:
        lines.append("\nA [command] as a start for your own .toml; nobody has run it here:\n[command]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in example.items() if value not in (None, "", {})]
    if differences := departures_text(name):
        lines.append("\n" + differences)
    if name in catalogue() and (rows := of_entry(name)):
        lines.append("\n" + published_text(rows))
    return "\n".join(lines)


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
