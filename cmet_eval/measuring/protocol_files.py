"""Reads protocols. A protocol is a TOML file that states how a published evaluation treats videos, and its metrics.

The files `protocols/*.toml` ship with the package. Wherever a protocol's name is accepted, a path to another TOML file
is accepted too.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cmet_eval.measuring.treatment import LengthRule, RateRule, SizeRule, Treatment
from talking_face.names import Key, printable
from talking_face.signature import digest
from talking_face.user_files import Line, Link, Text, check_own_name, checked, named_toml, read_toml

_FOLDER = Path(__file__).parent / "protocols"


class _Strict(BaseModel):
    """Unknown fields are an error, so that a misspelt rule is not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Source(_Strict):
    """The code of the evaluation."""

    repository: Link  # owner/name, or an address
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{7,40}$")]
    files: tuple[Line, ...] = Field(min_length=1)

    def __str__(self) -> str:
        where = self.repository if "://" in self.repository else f"github.com/{self.repository}"
        return f"{where} at {self.commit[:7]}: {', '.join(self.files)}"


class Rules(_Strict):
    """The treatment of the files; see `cmet_eval.measuring.treatment.Treatment`. Each rule has to be stated."""

    rate: RateRule
    size: SizeRule
    length: LengthRule
    start: int = Field(ge=0, le=1_000_000)


class Protocol(_Strict):
    """What a published evaluation does with a folder of videos.

    Attributes:
        name: the name in commands and result rows. A shipped file has this name.
        title: one line for listings.
        source: the code of the evaluation.
        bibtex: the entry of its paper; "" without paper.
        treatment: rate, size, length and start of the files.
        metrics: the keys of the metrics with which the protocol prints its numbers. Their own rule gives the mean: over
            videos, or over all frames of all videos (`agg` in the signature).
        steps: what the evaluation does, one sentence or two each, in its order.
        departures: how values can differ from those of the code, with a magnitude.
    """

    name: Key
    title: Line
    source: Source
    bibtex: Literal[""] | Annotated[Text, Field(pattern=r"^@\w+\{")] = ""
    treatment: Rules
    metrics: tuple[Line, ...] = Field(min_length=1)
    steps: tuple[Text, ...] = Field(min_length=1)
    departures: tuple[Text, ...] = ()

    @property
    def rules(self) -> Treatment:
        """The treatment of the files."""
        return Treatment(**dict(self.treatment))

    @property
    def digest(self) -> str:
        """Eight hex digits, computed from what decides the values: name, treatment and metrics."""
        return digest(self.model_dump(mode="json", include={"name", "treatment", "metrics"}), 8)


@cache
def protocol_names() -> tuple[str, ...]:
    """The names of the protocols that ship with the package, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def get_protocol(name: str) -> Protocol:
    """The protocol with this name, or the protocol in this TOML file.

    Raises UserError if the name is unknown, the file has an error, or a file outside of the package has the name of a
    protocol of the package.
    """
    path = named_toml(name, _FOLDER, "protocol", protocol_names())
    protocol = checked(Protocol, read_toml(path, "protocol"), f"the protocol {printable(str(path))}")
    check_own_name(path, protocol.name, _FOLDER, "protocol", protocol_names())
    return protocol
