"""List the protocols of `cmet-eval measure --protocol`: how published evaluations treat and score videos.

With NAME, show one protocol: its source, metrics, rules and steps, and how its values differ from those of the code.

Examples:
    cmet-eval protocols
    cmet-eval protocols vico
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator
from typing import Annotated

import typer

from cmet_eval import completion
from cmet_eval.measuring.protocol_files import Protocol, get_protocol, protocol_names


def protocols(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            autocompletion=completion.protocols,
            help="the protocol to show, or a TOML file; default: list all",
        ),
    ] = None,
) -> None:
    width = shutil.get_terminal_size().columns
    print("\n".join(_list() if name is None else _details(get_protocol(name), width)))


def _list() -> Iterator[str]:
    longest = max(map(len, protocol_names()))
    for name in protocol_names():
        yield f"{name:{longest}}  {get_protocol(name).title}"
    yield ""
    yield "`cmet-eval protocols NAME` shows the steps; `cmet-eval measure PRED TARGET --protocol NAME` does them."


def _details(protocol: Protocol, width: int) -> Iterator[str]:
    rules = protocol.treatment
    yield f"{protocol.name}: {protocol.title}"
    yield f"source: {protocol.source}"
    yield f"metrics: {', '.join(protocol.metrics)}"
    yield f"rules: rate {rules.rate}, size {rules.size}, length {rules.length}, start {rules.start}"
    yield from _numbered("steps", protocol.steps, width)
    yield from _numbered("differences from the values of the code", protocol.departures or ("None is known.",), width)
    if protocol.bibtex:
        yield from ("", protocol.bibtex)


def _numbered(title: str, sentences: Iterable[str], width: int) -> Iterator[str]:
    yield from ("", f"{title}:")
    for k, text in enumerate(sentences, 1):
        head = f"{k:3}. "
        yield from textwrap.wrap(text, max(width, 40), initial_indent=head, subsequent_indent=" " * len(head))
