"""Tests that a file's schema follows the dataclass of its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pytest

from talking_face.arrow import Int64, schema_of


@dataclass(frozen=True)
class Row:
    name: str
    count: int | None
    share: float
    ready: bool
    sums: Mapping[str, float]
    size: Int64 = 0


@dataclass(frozen=True)
class Unknown:
    parts: dict[str, str]


def test_columns_follow_the_annotations() -> None:
    assert schema_of(Row, nullable=True) == pa.schema(
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
    with pytest.raises(TypeError, match=r"parts: no Arrow type for dict"):
        schema_of(Unknown)


def test_only_a_type_with_none_is_nullable_unless_asked() -> None:
    assert [column.nullable for column in schema_of(Row)] == [False, True, False, False, False, False]
