"""The methods of the catalogue, and one with its published numbers: `baselines list`, `baselines show NAME`."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

import typer

from cmet_baselines.published import Published, of_entry, tables
from cmet_baselines.registry import catalogue, describe, get_method
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError

KINDS = {
    "built-in": "Run as they stand",
    "python": "Classes that run in a process of their own",
    "command": "Command lines",
    "videos": "Folders of videos",
    "published": "Published numbers only; to run one, see `baselines show NAME` and docs/baselines.md",
}


class Action(StrEnum):
    """What to do."""

    LIST = "list"
    SHOW = "show"


def baselines(action: Action = typer.Argument(Action.LIST), name: str = typer.Argument(None)) -> None:
    if action is Action.LIST:
        for kind, title in KINDS.items():
            entries = [entry for entry in catalogue().values() if entry.kind == kind]
            if entries:
                print(f"{title}:")
            for entry in entries:
                role = f" ({entry.role})" if entry.role != "method" else ""
                print(f"  {entry.name:20} {entry.summary}{role}\n{'':22} sees {', '.join(entry.sees)}")
        return
    if not name:
        raise UserError("name the method to show; `cmet-eval baselines list` has them")
    files, known = ModelFiles.from_environment(), catalogue().get(name)
    if known is None or known.kind != "published":
        get_method(name, files)  # says what is wrong with it, if anything is
    record = describe(name, files)
    example = record.pop("example", None)
    for key, value in record.items():
        if value not in (None, "", [], (), {}):
            print(f"{key:12} {_plain(value)}")
    if isinstance(example, dict):
        print("\nA [command] to start a .toml of your own from; nobody has run it here:\n[command]")
        for key, value in example.items():
            if value not in (None, "", {}):
                print(f"{key} = {json.dumps(value)}")
    if known is not None and (rows := of_entry(known.name)):
        print("\n" + published_text(rows))


def published_text(rows: list[Published]) -> str:
    """Printed numbers by table of their paper, and the line that says what they are."""
    lines = ["Published numbers, as the papers print them; none is comparable with ours (docs/published.md):"]
    for (paper, table, dataset, setting), group in tables(rows).items():
        lines.append(f"  {paper}, {_table(table)}, {dataset}, {setting}")
        for method in dict.fromkeys(row.method for row in group):
            numbers = ", ".join(f"{row.metric} {row.value:g}" for row in group if row.method == method)
            lines.append(f"    {method}: {numbers}")
    return "\n".join(lines)


def _table(name: str) -> str:
    return name if name.startswith("Fig") else f"Table {name}"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key} {_plain(item)}" for key, item in value.items() if item not in (None, "", [], {}))
    if isinstance(value, list | tuple):
        return " | ".join(map(_plain, value)) if any(isinstance(item, dict) for item in value) else ", ".join(value)
    return str(value)
