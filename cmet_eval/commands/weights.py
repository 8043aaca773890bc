"""List, fetch or verify the pretrained files, with their licences.

Examples:
    cmet-eval weights list
    cmet-eval weights fetch syncnet_v2
    cmet-eval weights verify
"""

from __future__ import annotations

from enum import StrEnum

import typer

from cmet_eval import completion
from talking_face.pretrained import store
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError


class Action(StrEnum):
    """What to do."""

    LIST = "list"
    FETCH = "fetch"
    VERIFY = "verify"


def weights(
    action: Action = typer.Argument(Action.LIST, metavar="ACTION", help="list, fetch or verify"),
    names: list[str] = typer.Argument(
        None, metavar="NAME", autocompletion=completion.weights, help="names of the list; without a name: all"
    ),
) -> None:
    entries = [store.weight(name) for name in names] if names else list(store.registry().values())
    files, failed = ModelFiles.from_environment(), False
    for entry in entries:
        if action is Action.FETCH:
            if not names:
                raise UserError("name the weights to fetch; `cmet-eval weights list` shows them with their licences")
            print(f"{entry.name}: licence: {entry.licence}")
            print(f"{entry.name}: {store.fetch(entry.name, files)}")
            continue
        try:
            found = store.weight_file(entry.name, files)
            where = f"present, {found.check}: {found.path}"
        except store.MissingWeights:
            where = "absent"
            failed = failed or bool(names)
        except UserError as error:
            where, failed = str(error), True
        size = f"{entry.bytes / 1e6:.1f} MB" if entry.bytes else "size unknown"
        print(f"{entry.name}: {entry.about}; {size}; {entry.licence}\n    {where}")
    raise typer.Exit(1 if failed and action is Action.VERIFY else 0)
