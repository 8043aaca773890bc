"""Checks the form of a shard set's card and tables, because a stranger can write a file with a right digest.

The digests show damage. These checks show a field, a column or a cell that no version of this suite writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from cmet_pipelines.records import IDENTITY_FIELDS, LEDGER_SCHEMA, Card
from talking_face.names import Name
from talking_face.origin import Origin
from talking_face.sealed import Damaged
from talking_face.user_files import Line, Text, WrongValue, checked

_PLACES = (pa.field("shard", pa.string()), pa.field("row_group", pa.int32()))
_CLIPS = pa.schema([*IDENTITY_FIELDS, *_PLACES])
_FILLED = ("clip_id", "speaker", "n_frames", "fps", "size", "codec", "shard", "row_group", "column_checksums")
_NOT_NEGATIVE = ("n_frames", "n_valid", "fps", "size", "row_group")


class _ShardFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    bytes: int = Field(ge=0)
    footer: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Counts(BaseModel):
    kept: int
    dropped: int
    excluded: int
    skipped: int
    reasons: dict[str, int]


class _Begun(BaseModel):
    """The fields of a card that the next run of `preprocess` reads. A card without `complete` has no counts."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    settings: dict[str, Any]
    complete: bool = False
    counts: _Counts | None = None
    shards: dict[Name, _ShardFile] = {}


class _Card(BaseModel):
    """The fields of a finished card that readers use. Other fields are kept as they are."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    complete: Literal[True]
    dataset: Name
    digest: Line
    signature: Text
    shards: dict[Name, _ShardFile]
    settings: dict[str, Any] = {}
    notes: list[str] = []
    split_preset: Line = "none"
    origin: Origin | None = None


def check_card(path: Path, value: Mapping[str, object], remedy: str, *, finished: bool = True) -> Card:
    """The card of a set. Raises Damaged if a field is missing or has a form that the suite does not write.

    If `finished` is False, the card of a set that `preprocess` has not finished is allowed too.
    """
    try:
        checked(_Card if finished else _Begun, value, path.name)
    except WrongValue as error:
        raise Damaged(path, str(error.problems[0]), remedy) from None
    return cast(Card, value)


def check_clips(path: Path, table: pa.Table, remedy: str) -> pa.Table:
    """The table of clips. Raises Damaged for a column twice, another type, an empty cell, and a clip_id twice."""
    table = _with_types(path, table, _CLIPS, ("clip_id",), remedy)
    _require_filled(path, table, _FILLED, remedy)
    for name in set(_NOT_NEGATIVE) & set(table.schema.names):
        values = pc.fill_null(table[name], 0)
        if not pc.all(pc.and_(pc.greater_equal(values, 0), pc.is_finite(values)), min_count=0).as_py():
            raise Damaged(path, f"a number of {name} is negative or not finite", remedy)
    if len(pc.unique(table["clip_id"])) != table.num_rows:
        raise Damaged(path, "it has a clip twice", remedy)
    return table


def check_ledger(path: Path, table: pa.Table, remedy: str) -> pa.Table:
    """The ledger. Raises Damaged for a missing column, another type, and an empty cell in status or source."""
    table = _with_types(path, table, LEDGER_SCHEMA, LEDGER_SCHEMA.names, remedy)
    _require_filled(path, table, ("status", "source"), remedy)
    return table


def _with_types(path: Path, table: pa.Table, schema: pa.Schema, needed: Sequence[str], remedy: str) -> pa.Table:
    """The table with the types of the schema. Columns that the schema does not have are kept."""
    names = table.schema.names
    if wrong := [name for name in schema.names if names.count(name) > 1 or (name in needed and name not in names)]:
        raise Damaged(path, f"it needs one column {wrong[0]}", remedy)
    try:
        table.validate(full=True)
        for field in (field for field in schema if field.name in names):
            column = table[field.name].cast(field.type)
            table = table.set_column(names.index(field.name), field.name, column)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise Damaged(path, f"a column has another type: {' '.join(str(error).split())[:80]}", remedy) from None
    return table


def _require_filled(path: Path, table: pa.Table, names: Sequence[str], remedy: str) -> None:
    for name in names:
        if name in table.schema.names and table[name].null_count:
            raise Damaged(path, f"a cell of {name} is empty", remedy)
