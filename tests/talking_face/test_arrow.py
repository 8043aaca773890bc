"""Tests that a file's schema follows the dataclass of its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pytest

from talking_face.arrow import schema_of


@dataclass(frozen=True)
class Row:
    name: str
    count: int | None
    share: float
    ready: bool
    sums: Mapping[str, float]
    size: int = field(default=0, metadata={"arrow": pa.int64()})


@dataclass(frozen=True)
class Unknown:
    parts: list[str]


def test_columns_follow_the_annotations() -> None:
    assert schema_of(Row) == pa.schema(
        [
            ("name", pa.string()),
            ("count", pa.int32()),
            ("share", pa.float64()),
            ("ready", pa.bool_()),
            ("sums", pa.map_(pa.string(), pa.float64())),
            ("size", pa.int64()),
        ]
    )


def test_an_unknown_annotation_is_an_error_that_names_the_field() -> None:
    with pytest.raises(TypeError, match=r"Unknown\.parts: no Arrow type for list"):
        schema_of(Unknown)
