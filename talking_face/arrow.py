"""Creates the Arrow schema of a Parquet file from a TypedDict or a dataclass that describes one row of the file.

The schema has one column per field, in the order of the fields. The type of a field determines the Arrow type of its
column. If the type includes `None`, the column is nullable. `Annotated` adds information that a Python type does not
contain: the width of an integer, a description of the column, the stored form of an array.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Union, get_args, get_origin, get_type_hints

import pyarrow as pa

Int8 = Annotated[int, pa.int8()]
Int32 = Annotated[int, pa.int32()]
Int64 = Annotated[int, pa.int64()]

_TYPES: Mapping[object, pa.DataType] = {
    str: pa.string(),
    int: pa.int32(),
    float: pa.float64(),
    bool: pa.bool_(),
    Mapping[str, float]: pa.map_(pa.string(), pa.float64()),
}


@dataclass(frozen=True)
class About:
    """The description that is stored with a column."""

    text: str


@dataclass(frozen=True)
class Flat:
    """The stored form of an array: each row stores the array as one flat list with elements of the type `item`.

    `shape` describes the array before flattening.
    """

    item: pa.DataType
    shape: str


def schema_of(record: type, metadata: Mapping[str, str] | None = None, *, nullable: bool = False) -> pa.Schema:
    """The Arrow schema of a record type.

    Supported types are `str`, `int` (32 bits, or as annotated), `float` (64 bits), `bool`, `Mapping[str, float]`, lists
    of the types above, and arrays annotated with `Flat`. Each supported type can be combined with `None`.

    Args:
        record: a TypedDict or a dataclass.
        metadata: stored with the schema.
        nullable: True: every column can contain null. False: only a column whose type includes None can contain null.

    Raises:
        TypeError: a field has an unsupported type.
    """
    hints = get_type_hints(record, include_extras=True)
    return pa.schema([_field(name, hint, nullable) for name, hint in hints.items()], metadata)


def _field(name: str, hint: object, nullable: bool) -> pa.Field:
    """The Arrow column of one field. Raises TypeError for an unsupported type."""
    kind, notes = _split(hint)
    metadata: dict[str, str] = {}
    arrow = None
    for note in notes:
        if isinstance(note, Flat):
            arrow = _list_of(note.item)
            metadata["shape"] = note.shape
    for note in notes:
        if isinstance(note, About):
            metadata["about"] = note.text
    optional = get_origin(kind) in (Union, types.UnionType)
    if optional:
        (kind,) = (part for part in get_args(kind) if part is not types.NoneType)
    try:
        return pa.field(name, arrow or _arrow_type(kind, notes), optional or nullable, metadata or None)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None


def _arrow_type(kind: object, notes: tuple[object, ...] = ()) -> pa.DataType:
    inner, own = _split(kind)
    named = [note for note in (*notes, *own) if isinstance(note, pa.DataType)]
    if named:
        return named[0]
    if get_origin(inner) is list:
        return _list_of(_arrow_type(get_args(inner)[0]))
    if inner in _TYPES:
        return _TYPES[inner]
    raise TypeError(f"no Arrow type for {kind}")


def _list_of(item: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("element", item, nullable=False))


def _split(hint: object) -> tuple[object, tuple[object, ...]]:
    """Splits a type into the plain type and the notes of `Annotated`."""
    if get_origin(hint) is Annotated:
        inner, *notes = get_args(hint)
        return inner, tuple(notes)
    return hint, ()
