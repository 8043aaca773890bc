"""Reads and writes pair lists as Parquet or CSV files.

A list can come from a stranger. Every field is checked, and a Parquet file and the first line of a CSV file have a
digest of their content. The digest of the pairs is stored in both, so a changed pair is noticed.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import pyarrow as pa
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from cmet_eval.protocol.pairs import PairList
from cmet_leaderboards.escaping import csv_cell, csv_text
from cmet_leaderboards.row import check_setting_name
from talking_face.clip import Pair
from talking_face.files import open_regular, write_text
from talking_face.lines import one_line
from talking_face.names import Id, printable
from talking_face.reasons import UserError
from talking_face.sealed import SEAL, Damaged, read_sealed_table, sealed, write_sealed_table
from talking_face.signature import canonical_json
from talking_face.user_files import csv_rows

_LISTS = ("reference_frames", "emotion_audio", "neutral_audio")
_SCHEMA = pa.schema(
    [
        (name, pa.list_(pa.int32() if name == "reference_frames" else pa.string()))
        if name in _LISTS
        else (name, pa.int32() if name in ("seed", "intensity") else pa.string())
        for name in (f.name for f in dataclasses.fields(Pair))
    ]
)
_META_KEY = b"cmet_eval.pairs"
Fields: TypeAlias = dict[str, Any]  # the fields of a `Pair`, or the file's metadata, as plain values


def _printable(text: str) -> str:
    if not 1 <= len(text) <= 1000 or not text.isprintable():
        raise ValueError(f"{printable(text[:60])!r} is not a text of 1 to 1,000 printable characters")
    return text


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


_Line = Annotated[str, AfterValidator(_printable)]
_Ids = Annotated[tuple[Id, ...], BeforeValidator(_tuple)]
_Lines = Annotated[tuple[_Line, ...], BeforeValidator(_tuple)]
_Setting = Annotated[str, AfterValidator(check_setting_name)]
_Index = Annotated[int, Field(ge=0, lt=2**31)]


class _Row(BaseModel):
    """The fields of a `Pair` in a file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    pair_id: Id
    setting: _Setting
    seed: _Index
    speaker: _Line
    reference_clip: Id
    reference_frames: Annotated[tuple[_Index, ...], BeforeValidator(_tuple), Field(min_length=1)]
    reference_emotion: _Line
    source_clip: Id
    driving_clip: Id
    target_emotion: _Line
    intensity: _Index | None
    ground_truth_clip: Id | None
    emotion_audio: _Ids
    neutral_audio: _Ids
    visible: Literal["none", "upper-half", "all"]


class _Meta(BaseModel):
    """The other fields of a `PairList` in a file, and the digest of the pairs."""

    model_config = ConfigDict(extra="forbid", strict=True)

    setting: _Setting
    data_digest: str
    rules: str
    split: _Line
    seeds: _Index
    drawn: _Index
    missing: _Lines
    notes: _Lines
    digest: _Line


def write_pairs(pair_list: PairList, path: Path) -> None:
    """Writes the list as CSV if the file name ends in .csv, else as Parquet.

    The file is written atomically, and the same list always gives the same bytes.
    """
    meta = _meta_of(pair_list)
    if path.suffix == ".csv":
        write_text(path, pairs_text(pair_list))
        return
    rows = [pair.to_row() for pair in pair_list.pairs]
    table = pa.Table.from_pylist(rows, schema=_SCHEMA.with_metadata({_META_KEY: canonical_json(meta).encode()}))
    write_sealed_table(table, path)


def pairs_text(pair_list: PairList) -> str:
    """The text of the CSV file of a list."""
    return _to_csv([pair.to_row() for pair in pair_list.pairs], _meta_of(pair_list))


def _meta_of(pair_list: PairList) -> Fields:
    return {
        "setting": pair_list.setting,
        "data_digest": pair_list.data_digest,
        "rules": pair_list.rules,
        "split": pair_list.split,
        "seeds": pair_list.seeds,
        "drawn": pair_list.drawn,
        "missing": list(pair_list.missing),
        "notes": list(pair_list.notes),
        "digest": pair_list.digest,
    }


def read_pairs(path: Path) -> PairList:
    """Reads a file that `write_pairs` wrote.

    Raises UserError if the file is not a pair list, has a field that is not allowed, or was changed by hand.
    """
    remedy = f"draw the pairs again with cmet-eval pairs SETTING --data OUT -o {path.name}"
    try:
        if path.suffix == ".csv":
            rows, meta = _from_csv(path, remedy)
        else:
            table = read_sealed_table(path, remedy)
            meta = json.loads((table.schema.metadata or {}).get(_META_KEY, b"{}"))
            rows = table.to_pylist()
        if not rows or "setting" not in meta:
            raise ValueError("it holds no pairs of a setting")
        facts = _Meta.model_validate(meta).model_dump()
        pairs = tuple(Pair(**_Row.model_validate(row).model_dump()) for row in rows)
    except FileNotFoundError:
        raise UserError(f"no pair list at {path}; make one with cmet-eval pairs SETTING --data OUT -o {path}") from None
    except ValidationError as error:
        raise UserError(f"{path} is not a list that cmet-eval pairs wrote: {_first(error)}") from None
    except (OSError, ValueError, TypeError, RecursionError, csv.Error, pa.ArrowException) as error:
        text = one_line(error, 200)
        raise UserError(f"{path} is not a list that cmet-eval pairs wrote: {text}") from None
    expected = facts.pop("digest")
    result = PairList(pairs=pairs, **facts)
    if expected != result.digest:
        raise UserError(f"{path} was changed after it was written: its digest is {result.digest}, not {expected}")
    if len({pair.pair_id for pair in pairs}) != len(pairs):
        raise UserError(f"{path} names a pair twice")
    if {pair.setting for pair in pairs} != {result.setting}:
        raise UserError(f"{path} has pairs of other settings than {result.setting}")
    return result


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"


def _to_csv(rows: list[Fields], meta: Fields) -> str:
    """CSV text. Lists are written as JSON; None is an empty cell. The first line, `# {...}`, contains the metadata."""
    buffer = io.StringIO()
    buffer.write(f"# {canonical_json(sealed(meta))}\n")
    writer = csv.DictWriter(buffer, fieldnames=_SCHEMA.names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: canonical_json(v) if k in _LISTS else csv_cell(v) for k, v in row.items()})
    return buffer.getvalue()


def _from_csv(path: Path, remedy: str) -> tuple[list[Fields], Fields]:
    with open_regular(path) as file:
        head, _, body = file.read().decode("utf-8").partition("\n")
    if not head.startswith("# {"):
        raise ValueError("its first line should be '# {...}' with the setting and the data digest")
    meta: Fields = json.loads(head[2:])
    if sealed(meta) != meta:
        raise Damaged(path, f"the {SEAL} of its first line is not that of its content", remedy)
    # An empty line replaces the first line, so that messages have the numbers of the file's lines.
    found = csv_rows("\n" + body, str(path), _SCHEMA.names)
    rows = [{name: _value(name, cell) for name, cell in row.cells.items()} for row in found]
    return rows, {name: value for name, value in meta.items() if name != SEAL}


def _value(name: str, cell: str) -> object:
    if name in _LISTS:
        return json.loads(cell)
    if name in ("seed", "intensity"):
        return int(cell) if cell else None
    return csv_text(cell) if cell or name != "ground_truth_clip" else None
