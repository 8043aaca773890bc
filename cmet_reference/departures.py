"""Reads departures.toml, the record of all differences between the reference models and their papers.

Docs, the cards of checkpoints, `cmet-eval baselines show` and the board read the differences from this record. Print it
as Markdown, for docs/reference/departures.md: `python -m cmet_reference.departures`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from talking_face.user_files import Line, Text, checked, read_toml

RECORD = Path(__file__).with_name("departures.toml")
PAGE = "docs/reference/departures.md"
ABSENT = "absent"  # in place of a value: the settings have no such table
Config = Literal["paper", "adapted", "demo"]
CONFIGS: tuple[Config, ...] = get_args(Config)
Value = str | bool | int | float | None


class Departure(BaseModel):
    """One difference between a model and its paper or its authors' code.

    Attributes:
        model: cmet or cem-net.
        stage: the stage that differs; "inference" for a difference after the training.
        topic: short name of the difference, for boards.
        theirs: what the paper or the released code does.
        source: where this is stated.
        ours: what this suite does.
        configs: the settings in which our behaviour differs.
        reason: why.
        settings: values of settings by dotted key and name of the settings, for example
            {"ebm.net.slots": {"paper": 64, "adapted": 64, "demo": 32}}. A test compares them with the TOML files.
        covers: patterns of dotted keys that this record describes without values.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Literal["cmet", "cem-net"]
    stage: Line
    topic: Line
    theirs: Text
    source: Line
    ours: Text
    configs: tuple[Config, ...] = Field(min_length=1)
    reason: Text
    settings: Mapping[str, Mapping[Config, Value]] = {}
    covers: tuple[Line, ...] = ()

    def describes(self, key: str) -> bool:
        """Whether this record describes the setting with this dotted key."""
        return key in self.settings or any(fnmatchcase(key, pattern) for pattern in self.covers)

    def line(self) -> str:
        """The difference in one line, for cards."""
        return f"{self.topic}: {self.theirs} Here: {self.ours}"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    departure: tuple[Departure, ...]


@cache
def departures() -> tuple[Departure, ...]:
    """All records, in the order of the file."""
    return checked(_Record, read_toml(RECORD, "record of departures"), str(RECORD)).departure


def departures_of(model: str, stages: Iterable[str], config: Config) -> list[Departure]:
    """The records about these stages of a model, in these settings."""
    names = {*stages}
    return [d for d in departures() if d.model == model and d.stage in names and config in d.configs]


def departures_of_checkpoint(stage: str, table: Mapping[str, object]) -> list[str]:
    """One line for each difference between a checkpoint and the paper.

    Args:
        stage: the name of the stage.
        table: its recorded settings, see `checkpoints.TrainedOn`.
    """
    model = _model_of(stage)
    return [d.line() for d in departures_of(model, [stage], nearest_config(stage, table))]


def nearest_config(stage: str, table: Mapping[str, object]) -> Config:
    """The settings whose records describe a checkpoint with this table of settings.

    A stage was trained as in the paper only if its table equals the table in paper.toml, without the folders of
    `codec` and `speech`, which differ between machines. Other settings are `demo` if they equal demo.toml, and
    `adapted` if not.

    Args:
        stage: the name of the stage.
        table: its recorded settings, see `checkpoints.TrainedOn`.
    """
    from cmet_reference.training import config  # here, because the record alone is read without any package

    package = f"cmet_reference.{_model_of(stage).replace('-', '_')}"
    for name in ("paper", "demo"):
        whole = config.load(package, name)
        if _kinds(whole.get(stage, whole)) == _kinds(table):
            return "paper" if name == "paper" else "demo"
    return "adapted"


def _model_of(stage: str) -> str:
    from cmet_reference.training.checkpoints import model_of

    return model_of(stage)


def _kinds(value: object) -> object:
    """Settings in which `KIND:FOLDER` is KIND, and a tuple is a list."""
    if isinstance(value, Mapping):
        return {key: _kinds(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [*map(_kinds, value)]
    return value.partition(":")[0] if isinstance(value, str) else value


def markdown() -> str:
    """The records as Markdown, one table for each model and stage."""
    return "\n".join(_markdown_lines())


def _markdown_lines() -> Iterator[str]:
    for model, title in (("cmet", "C-MET"), ("cem-net", "CEM-Net")):
        yield f"## {title}"
        own = [d for d in departures() if d.model == model]
        for stage in dict.fromkeys(d.stage for d in own):
            yield from ("", f"### {title}: {stage}", "")
            yield "| topic | paper or released code | source | here | settings | reason |"
            yield "|---|---|---|---|---|---|"
            for d in own:
                if d.stage == stage:
                    cells = (d.topic, d.theirs, d.source, d.ours, _where(d), d.reason)
                    yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        yield ""


def _where(departure: Departure) -> str:
    """The names of the settings, and the values of the keys."""
    values = [
        f"`{key}`: " + ", ".join(f"{name} {_text(value)}" for name, value in by_name.items())
        for key, by_name in departure.settings.items()
    ]
    return "; ".join([", ".join(departure.configs), *values])


def _text(value: Value) -> str:
    return f"{value}".lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else f"{value}"


if __name__ == "__main__":
    print(markdown())
