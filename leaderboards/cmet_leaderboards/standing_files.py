"""Reads and writes the text files of one board of the standing leaderboard.

A board is a folder. Its files are text, sorted, with numbers of 7 significant digits, so that a change is a readable
diff:

    board.json       keys of the table, setting, pairs, cards of the evaluators, digests of the two tables
    metrics.csv      one line per metric: signature, direction, ideal value, unit
    pairs.csv        one line per pair: labels and ground truth
    METHOD@REVISION.json   one record per method and training seed: facts, command, environment, digest of the rows
    METHOD@REVISION.csv    its rows, one line per pair and one cell per metric

A cell is a value, or a reason with its message. An empty cell has no row. Statistics are kept only where a board needs
them: for pooled metrics and for predictions. Statistics of 0 are left out. A fact that is the same in all rows is in
the record and not in the lines.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import pyarrow as pa

from cmet_leaderboards import metric_facts
from cmet_leaderboards.escaping import csv_cell, csv_text
from cmet_leaderboards.file_record import FileRecord
from cmet_leaderboards.results import SCHEMA, Part, checked_part
from cmet_leaderboards.row import TABLE_KEYS
from talking_face.files import sha256_of
from talking_face.lines import one_line
from talking_face.names import file_name_of
from talking_face.reasons import UserError
from talking_face.sealed import Damaged, read_sealed_json, sealed
from talking_face.signature import digest
from talking_face.user_files import csv_rows, number, read_text

Row = Mapping[str, object]
DIGITS = 7  # significant digits of stored numbers; `cmet-eval verify` allows differences of 1e-6
BOARD = "board.json"
_FORMAT = "cmet-eval-standing-1"
_METRIC = ("metric", "signature", "higher_is_better", "ideal", "unit")
_PAIR = ("pair_id", "seed", "speaker", "reference_emotion", "target_emotion", "intensity", "ground_truth_clip")
_FACTS = ("video_sha256", "codec", "notes", "n")  # facts of a row that are often the same in many rows
_WHOLE = ("seed", "intensity", "n")
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]\d+)?")
_REMEDY = "restore the committed file, or add the run again"


@dataclass(frozen=True)
class Method:
    """The rows of one revision of a method, which has one training seed."""

    record: FileRecord
    rows: Sequence[Row]  # the columns of SCHEMA
    environment: Mapping[str, str] = field(default_factory=dict)  # versions and hardware of the run


@dataclass(frozen=True)
class Board:
    """All rows of one table."""

    key: Mapping[str, str]  # TABLE_KEYS
    methods: Sequence[Method]
    evaluators: Sequence[Mapping[str, object]] = ()  # cards of the evaluators that were trained on the data


def folder_of(key: Mapping[str, str]) -> str:
    """The name of a board's folder: setting, data, pair list, and a digest of the keys of the table."""
    rest = digest({name: value for name, value in key.items() if name != "origin"}, 6)
    drawn = "drawn-" if key["origin"] == "drawn" else ""  # drawn clips in the folders of MEAD are not MEAD
    data = f"{drawn}{key['dataset'][:40]}-{key['data_digest'][:8]}"
    return file_name_of(f"{key['setting'][:60]}--{data}--pairs-{key['pairs_digest'][:8]}--{rest}")


def short(value: float) -> str:
    """The number as text, with DIGITS significant digits."""
    return f"{value + 0.0:.{DIGITS}g}"  # + 0.0: never -0


# Writing --------------------------------------------------------------------------------------------------------------


def board_files(board: Board) -> dict[str, str]:
    """The texts of all files of a board, by file name.

    Raises:
        UserError: two rows contradict each other in the labels of a pair.
    """
    every = [row for method in board.methods for row in method.rows]
    names = _metric_names(every)
    metrics = {names[str(row["signature"])]: [_text(row[name]) for name in _METRIC] for row in every}
    pairs = _pair_lines(every)
    tables = {
        "metrics.csv": _csv(("id", *_METRIC), [[name, *metrics[name]] for name in sorted(metrics)]),
        "pairs.csv": _csv(_PAIR, [pairs[pair] for pair in sorted(pairs)]),
    }
    first = board.methods[0].record
    about = {
        "format": _FORMAT,
        "key": {name: board.key[name] for name in TABLE_KEYS},
        "setting": asdict(first.setting) if first.setting else None,
        "pairs": asdict(first.pairs),
        "evaluators": sorted(board.evaluators, key=str),
        "digests": {name: sha256_of(text.encode()) for name, text in tables.items()},
    }
    files = {BOARD: _json(about), **tables}
    for method in board.methods:
        files |= _method_files(method, names)
    return files


def record_name(method: Method) -> str:
    """The name of the file with the method's record."""
    return f"{file_name_of(method.record.key['method'], method.record.key['revision'])}.json"


def _metric_names(rows: Iterable[Row]) -> dict[str, str]:
    """The name of each signature in the tables: the metric's key, with a digest if the key has several signatures."""
    signatures = {str(row["signature"]): str(row["metric"]) for row in rows}
    keys = list(signatures.values())
    return {
        signature: key if keys.count(key) == 1 else f"{key}@{digest(signature, 6)}"
        for signature, key in signatures.items()
    }


def _pair_lines(rows: Iterable[Row]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in rows:
        line = [_text(row[name]) for name in _PAIR]
        if found.setdefault(line[0], line) != line:
            raise UserError(f"two rows of the pair {row['pair_id']} differ in its labels: {line} and {found[line[0]]}")
    return found


def _method_files(method: Method, names: Mapping[str, str]) -> dict[str, str]:
    facts, name = method.record, record_name(method)
    rows = {(str(row["pair_id"]), names[str(row["signature"])]): row for row in method.rows}
    pairs, ids = sorted({pair for pair, _ in rows}), sorted({one for _, one in rows})
    columns: dict[str, Callable[[str], str]] = {}
    same: dict[str, object] = {}
    for fact in _FACTS:
        _add_fact(fact, rows, (pairs, ids), columns, same)
    for one in ids:
        columns[one] = _column(rows, one, _value_cell)
        if any(_kept_stats(row) for (_, other), row in rows.items() if other == one):
            columns[f"stats of {one}"] = _column(rows, one, _stats_cell)
    table = _csv(("pair", *columns), [[pair, *(cell(pair) for cell in columns.values())] for pair in pairs])
    record = {
        "format": _FORMAT,
        "revision": facts.key["revision"],
        "method": {"name": facts.key["method"], **asdict(facts.method)},
        "command": facts.command,
        "environment": dict(sorted(method.environment.items())),
        "same": same,
        "rows": sha256_of(table.encode()),
    }
    return {name: _json(record), f"{name.removesuffix('.json')}.csv": table}


Rows = Mapping[tuple[str, str], Row]  # by pair and metric


def _add_fact(
    fact: str,
    rows: Rows,
    places: tuple[Sequence[str], Sequence[str]],
    columns: dict[str, Callable[[str], str]],
    same: dict[str, object],
) -> None:
    """Adds a fact to `same` if it has one value, else to `columns`: one column if it is a fact of the pair."""
    pairs, ids = places
    if len({row[fact] for row in rows.values()}) == 1:
        same[fact] = next(iter(rows.values()))[fact]
        return
    of_pair: dict[str, set[object]] = {}
    for (pair, _), row in rows.items():
        of_pair.setdefault(pair, set()).add(row[fact])
    if all(len(values) == 1 for values in of_pair.values()):
        found = {pair: _text(next(iter(values))) for pair, values in of_pair.items()}
        columns[fact] = found.__getitem__
        return
    for one in ids:
        some = {pair: rows[pair, one][fact] for pair in pairs if (pair, one) in rows}
        if len(set(some.values())) == 1:
            same[f"{fact} of {one}"] = next(iter(some.values()))
        else:
            columns[f"{fact} of {one}"] = _column(rows, one, lambda row: _text(row[fact]))


def _column(rows: Rows, one: str, cell: Callable[[Row], str]) -> Callable[[str], str]:
    """The cells of a metric's column, by pair. A pair without a row has an empty cell."""
    return lambda pair: cell(rows[pair, one]) if (pair, one) in rows else ""


def _value_cell(row: Row) -> str:
    if isinstance(row["value"], float):
        return short(row["value"])
    return f"{row['reason']}: {row['detail']}" if row["detail"] else str(row["reason"])


def _kept_stats(row: Row) -> dict[str, float]:
    """The statistics from which boards compute values. For an unknown metric, all statistics are kept."""
    metric, stats = str(row["metric"]), dict(row["stats"] or ())  # type: ignore[call-overload]
    if not metric_facts.is_known(metric) or metric_facts.pooled(metric):
        return stats
    return {name: x for name, x in stats.items() if ">" in name} if metric_facts.counts_predictions(metric) else {}


def _stats_cell(row: Row) -> str:
    return ";".join(f"{name}={short(value)}" for name, value in sorted(_kept_stats(row).items()) if value)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return short(value)
    return str(csv_cell(value))


def _csv(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(lines)
    return buffer.getvalue()


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(sealed(value), indent=1, ensure_ascii=False) + "\n"


# Reading --------------------------------------------------------------------------------------------------------------


def read_board(folder: Path) -> Board:
    """Read all files of a board.

    Raises:
        Damaged: a file is not what was written.
        UserError: a file does not have this form.
    """
    about = _record(folder / BOARD)
    with _form_of(folder / BOARD):
        key = {name: str(_mapping(about["key"])[name]) for name in TABLE_KEYS}
        digests = _mapping(about["digests"])
        evaluators = list(map(_mapping, cast(Iterable[object], about["evaluators"])))
        metric_table, pair_table = digests["metrics.csv"], digests["pairs.csv"]
    if folder.name != folder_of(key):
        raise UserError(
            f"the keys of the board in {folder} belong to the folder {folder_of(key)}; rename it, or {_REMEDY}"
        )
    metrics = {line["id"]: line for line in _lines(folder / "metrics.csv", ("id", *_METRIC), metric_table)}
    pairs = {line["pair_id"]: line for line in _lines(folder / "pairs.csv", _PAIR, pair_table)}
    methods = []
    for path in sorted(path for path in folder.glob("*.json") if path.name != BOARD):
        with _form_of(path):
            methods.append(_read_method(path, about, key, metrics, pairs))
            if record_name(methods[-1]) != path.name:
                raise ValueError("its name does not fit its method and revision")
    return Board(key, methods, evaluators)


@contextmanager
def _form_of(path: Path) -> Iterator[None]:
    """Replaces the errors that another form of the file causes."""
    try:
        yield
    except (KeyError, ValueError, TypeError, AttributeError, StopIteration) as error:
        raise Damaged(path, f"it has another form: {one_line(error, 100)}", _REMEDY) from None


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{str(value)[:60]!r} is not a JSON object")
    return value


def _record(path: Path) -> Mapping[str, object]:
    try:
        found = read_sealed_json(path, _REMEDY)
    except FileNotFoundError:
        raise Damaged(path, "it is missing", _REMEDY) from None
    if found.get("format") != _FORMAT:
        raise UserError(f"{path} does not have the format {_FORMAT}; {_REMEDY}")
    return found


def _lines(path: Path, columns: Sequence[str], expected: object) -> list[Mapping[str, str]]:
    text = read_text(path, "table of the standing leaderboard")
    if sha256_of(text.encode()) != expected:
        raise Damaged(path, "it is not what was written", _REMEDY)
    return [row.cells for row in csv_rows(text, str(path), columns)]


def _read_method(
    path: Path,
    about: Mapping[str, object],
    key: Mapping[str, str],
    metrics: Mapping[str, Mapping[str, str]],
    pairs: Mapping[str, Mapping[str, str]],
) -> Method:
    stored = _record(path)
    facts, same = _mapping(stored["method"]), _mapping(stored["same"])
    keys = {**key, "method": str(facts["name"]), "revision": str(stored["revision"])}
    record = FileRecord.of({**about, "method": facts, "command": stored["command"]}, keys)
    rows = []
    for line in _lines(path.with_suffix(".csv"), ("pair",), stored["rows"]):
        labels = {name: _value(name, pairs[line["pair"]][name]) for name in _PAIR}
        for one in metrics.keys() & line.keys():
            if line[one]:
                shared = {name: _value(name, metrics[one][name]) for name in _METRIC}
                rows.append({**keys, **labels, **shared, **_own_cells(line, one, same)})
    return Method(record, rows, {str(name): str(value) for name, value in _mapping(stored["environment"]).items()})


def _own_cells(line: Mapping[str, str], one: str, same: Mapping[str, object]) -> dict[str, object]:
    """The columns of a row that belong to one pair and one metric."""
    found: dict[str, object] = {"value": None, "reason": None, "detail": ""}
    if _NUMBER.fullmatch(line[one]):
        found["value"] = float(line[one])
    else:
        found["reason"], _, found["detail"] = line[one].partition(": ")
    parts = (part.rpartition("=") for part in line.get(f"stats of {one}", "").split(";") if part)
    found["stats"] = sorted((name, float(value)) for name, _, value in parts)
    for fact in _FACTS:
        place = next(name for name in (fact, f"{fact} of {one}") if name in same or name in line)
        found[fact] = same[place] if place in same else _value(fact, line[place])
    return found


def _value(name: str, text: str) -> object:
    """The value in a cell of the column `name`."""
    if name == "higher_is_better":
        return text == "true"
    if not text and name not in ("codec", "notes", "unit"):
        return None
    if name in _WHOLE:
        return int(text)
    return number(text, name) if name == "ideal" else csv_text(text)


def part_of(method: Method, path: Path) -> Part:
    """The rows of a method as a part of results, after the checks for rows of strangers."""
    ordered = sorted(method.rows, key=lambda row: (str(row["metric"]), str(row["signature"]), str(row["pair_id"])))
    return checked_part(path, pa.Table.from_pylist(ordered, schema=SCHEMA), method.record)
