"""Makes the Arrow schema of a file from the dataclass of its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import NoneType
from typing import get_args, get_type_hints

import pyarrow as pa

# Annotation -> the type of its column. Every column may contain null.
_TYPES: Mapping[object, pa.DataType] = {
    str: pa.string(),
    int: pa.int32(),
    float: pa.float64(),
    bool: pa.bool_(),
    Mapping[str, float]: pa.map_(pa.string(), pa.float64()),
}


def schema_of(row: type) -> pa.Schema:
    """The columns of a dataclass, in the order of its fields.

    `str`, `int` (32 bits), `float` (64 bits), `bool` and `Mapping[str, float]` are known, each also as `... | None`. A
    field with `metadata={"arrow": TYPE}` is stored as that type.

    Args:
        row: a dataclass.

    Raises:
        TypeError: a field has another annotation and no `arrow` type.
    """
    hints = get_type_hints(row)
    columns = []
    for field in fields(row):
        options = [option for option in get_args(hints[field.name]) if option is not NoneType]
        kind = options[0] if NoneType in get_args(hints[field.name]) else hints[field.name]
        stored = field.metadata.get("arrow", _TYPES.get(kind))
        if stored is None:
            raise TypeError(f"{row.__name__}.{field.name}: no Arrow type for {kind}; give metadata={{'arrow': ...}}")
        columns.append(pa.field(field.name, stored))
    return pa.schema(columns)
