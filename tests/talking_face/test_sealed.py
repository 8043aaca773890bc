"""Sealed files: every changed bit is found, and the content comes back."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from talking_face.sealed import Damaged, read_sealed_json, read_sealed_table, write_sealed_json, write_sealed_table

TABLE = pa.table({"clip": ["a", "b"], "frames": [25, 50]}).replace_schema_metadata({"note": "two clips"})
VALUE = {"value": 31.25, "notes": ["é", None], "nested": {"b": 1, "a": True}}


def unnoticed(path: Path, read: Callable[[], object]) -> list[int]:
    """The positions of the bytes in which a flipped bit is not found."""
    data = path.read_bytes()
    found = []
    for position in range(len(data)):
        for bit in (0, 5):
            path.write_bytes(data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :])
            try:
                read()
            except Damaged as error:
                assert str(error).startswith(str(path)) and "\n" not in str(error)
            else:
                found.append(position)
    path.write_bytes(data)
    return found


def test_every_flipped_bit_of_a_table_is_found(tmp_path: Path) -> None:
    path = tmp_path / "clips.parquet"
    write_sealed_table(TABLE, path)
    assert unnoticed(path, lambda: read_sealed_table(path, "write it again")) == []
    assert read_sealed_table(path, "").equals(TABLE, check_metadata=True)
    assert read_sealed_table(path, "", ["frames"])["frames"].to_pylist() == [25, 50]


def test_every_flipped_bit_of_a_json_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "score.json"
    write_sealed_json(path, VALUE)
    # The line end is not part of the value: a changed line end is found only if the text is then not JSON.
    assert set(unnoticed(path, lambda: read_sealed_json(path, "score it again"))) <= {path.stat().st_size - 1}
    assert read_sealed_json(path, "") == VALUE


def test_the_layout_of_a_json_file_is_not_part_of_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    write_sealed_json(path, VALUE, indent=1)
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert read_sealed_json(path, "") == VALUE


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{}", b'{"value": 1}', b"\xff", b"[" * 100_000])
def test_other_json_is_damaged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "score.json"
    path.write_bytes(content)
    with pytest.raises(Damaged, match=r"score\.json is damaged .*; score it again"):
        read_sealed_json(path, "score it again")


def test_the_error_passes_between_processes(tmp_path: Path) -> None:
    error = pickle.loads(pickle.dumps(Damaged(tmp_path / "a", "why", "what to do")))
    assert str(error) == f"{tmp_path / 'a'} is damaged (why); what to do"
