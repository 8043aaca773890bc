"""List the methods of the catalogue, or show one: `baselines list`, `baselines show NAME`."""

from __future__ import annotations

from enum import StrEnum

import typer

from baselines.registry import catalogue, describe, get_method
from talking_face.reasons import UserError


class Action(StrEnum):
    """What to do."""

    LIST = "list"
    SHOW = "show"


def baselines(action: Action = typer.Argument(Action.LIST), name: str = typer.Argument(None)) -> None:
    if action is Action.LIST:
        for entry in catalogue().values():
            print(f"{entry.name:20} {entry.role:8} sees {', '.join(entry.sees)}\n{'':20} {entry.summary}")
        return
    if not name:
        raise UserError("name the method to show; `cmet-eval baselines list` has them")
    get_method(name)
    for key, value in describe(name).items():
        print(f"{key:12} {', '.join(value) if isinstance(value, list | tuple) else value}")
