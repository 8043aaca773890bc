"""The Arrow schemas that are made from the record types are the schemas of all shard sets written so far."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypedDict, get_type_hints

import pytest

from cmet_pipelines.records import ARRAY_FIELDS, IDENTITY_FIELDS, LEDGER_SCHEMA, SCHEMA, ClipRecord
from talking_face.arrow import schema_of

GOLDEN = Path(__file__).parent / "golden" / "arrow_schemas.txt"


def test_schemas_are_the_golden_ones() -> None:
    ours = SCHEMA.to_string(show_field_metadata=True, show_schema_metadata=True)
    assert f"{ours}\n\n{LEDGER_SCHEMA.to_string(show_field_metadata=True)}\n" == GOLDEN.read_text()
    # Order of metadata and nullability of list elements, too.
    assert hashlib.sha256(SCHEMA.serialize()).hexdigest()[:16] == "08007114650f6e95"
    assert hashlib.sha256(LEDGER_SCHEMA.serialize()).hexdigest()[:16] == "e3f829ac987ca38c"


def test_a_record_has_every_column() -> None:
    assert get_type_hints(ClipRecord).keys() == set(SCHEMA.names)
    assert SCHEMA.names == [field.name for field in (*IDENTITY_FIELDS, *ARRAY_FIELDS)]


def test_a_type_without_an_arrow_type_is_refused() -> None:
    class Wrong(TypedDict):
        when: complex

    with pytest.raises(TypeError, match="complex"):
        schema_of(Wrong)
