"""Reads and writes pair lists as Parquet or CSV files."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from cmet_eval.protocol.pairs import PairList
from talking_face.clip import Pair
from talking_face.files import replacing, write_text
from talking_face.reasons import UserError
from talking_face.signature import canonical_json

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


def write_pairs(pair_list: PairList, path: Path) -> None:
    """Writes the list as CSV if the file name ends in .csv, else as Parquet.

    The file is written atomically, and the same list always gives the same bytes.
    """
    meta = {
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
    rows = [pair.to_row() for pair in pair_list.pairs]
    if path.suffix == ".csv":
        write_text(path, _to_csv(rows, meta))
        return
    table = pa.Table.from_pylist(rows, schema=_SCHEMA.with_metadata({_META_KEY: canonical_json(meta).encode()}))
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_pairs(path: Path) -> PairList:
    """Reads a file that `write_pairs` wrote. Raises UserError if the file is not a pair list or was changed by hand."""
    try:
        if path.suffix == ".csv":
            rows, meta = _from_csv(path.read_text(encoding="utf-8"))
        else:
            table = pq.read_table(path)
            meta = json.loads((table.schema.metadata or {}).get(_META_KEY, b"{}"))
            rows = table.to_pylist()
        if not rows or "setting" not in meta:
            raise ValueError("it holds no pairs of a setting")
        expected = str(meta.pop("digest", ""))
        meta |= {name: tuple(meta.get(name, ())) for name in ("missing", "notes")}
        result = PairList(pairs=tuple(map(_to_pair, rows)), **meta)
    except FileNotFoundError:
        raise UserError(f"no pair list at {path}; make one with cmet-eval pairs SETTING --data OUT -o {path}") from None
    except (OSError, ValueError, TypeError, KeyError, StopIteration, pa.ArrowException) as error:
        what = f"it has no column {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path} is not a list that cmet-eval pairs wrote: {what}") from error
    if expected != result.digest:
        raise UserError(f"{path} was changed after it was written: its digest is {result.digest}, not {expected}")
    if len({pair.pair_id for pair in result.pairs}) != len(result.pairs):
        raise UserError(f"{path} names a pair twice")
    return result


def _to_pair(row: Fields) -> Pair:
    fields: Fields = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    return Pair(**fields)


def _to_csv(rows: list[Fields], meta: Fields) -> str:
    """CSV text. Lists are written as JSON; None is an empty cell. The first line, `# {...}`, contains the metadata."""
    buffer = io.StringIO()
    buffer.write(f"# {canonical_json(meta)}\n")
    writer = csv.DictWriter(buffer, fieldnames=_SCHEMA.names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: canonical_json(v) if k in _LISTS else "" if v is None else v for k, v in row.items()})
    return buffer.getvalue()


def _from_csv(text: str) -> tuple[list[Fields], Fields]:
    head, _, body = text.partition("\n")
    if not head.startswith("# {"):
        raise ValueError("its first line should be '# {...}' with the setting and the data digest")
    rows: list[Fields] = []
    for raw in csv.DictReader(io.StringIO(body)):
        row: Fields = {}
        for name, cell in raw.items():
            if name in _LISTS:
                row[name] = json.loads(cell)
            elif name in ("seed", "intensity"):
                row[name] = int(cell) if cell else None
            else:
                row[name] = cell if cell or name != "ground_truth_clip" else None
        rows.append(row)
    return rows, json.loads(head[2:])
