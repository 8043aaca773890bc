"""Adds result rows to the standing leaderboard, and reads all of its rows.

The folder of the standing leaderboard holds one folder per board; `standing_files` describes its files. Rows are added
only with `add_results`, by the command `cmet-eval standing --add` and for submissions. Rows that contradict the stored
rows are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from cmet_leaderboards.file_record import FileRecord
from cmet_leaderboards.results import FILE_KEYS, SCHEMA, Part, Results, combined, grouped
from cmet_leaderboards.row import TABLE_KEYS
from cmet_leaderboards.standing_files import (
    BOARD,
    Board,
    Method,
    Row,
    board_files,
    folder_of,
    part_of,
    read_board,
    record_name,
    short,
)
from talking_face.files import write_text
from talking_face.names import inside
from talking_face.reasons import UserError

TOLERANCE = 1e-6  # of max(1, |value|): values of two machines that differ less are the same, as in `cmet-eval verify`


@dataclass(frozen=True)
class Provenance:
    """What is known about rows and is not in them."""

    environment: Mapping[str, str] = field(default_factory=dict)  # versions and hardware of the run
    evaluators: Sequence[Mapping[str, object]] = ()  # cards of the evaluators that were trained on the run's data
    training_seeds: Mapping[str, int] = field(default_factory=dict)  # by method


def read_standing(folder: Path) -> Results:
    """All rows of the standing leaderboard.

    Raises:
        Damaged: a file is not what was written.
        UserError: the folder has no board, a file has another form, or two files contradict each other.
    """
    return results_of(read_boards(folder), folder)


def results_of(boards: Mapping[str, Board], folder: Path) -> Results:
    """All rows of boards that were read from `folder`. Raises the same errors as `read_standing`."""
    parts = [part for board in boards.values() for part in _parts(board, folder)]
    if not parts:
        raise UserError(f"no board under {folder}; add a run with `cmet-eval standing --add RUN`")
    return combined(parts)


def read_boards(folder: Path) -> dict[str, Board]:
    """The boards by the name of their folder, sorted."""
    return {path.parent.name: read_board(path.parent) for path in sorted(folder.glob(f"*/{BOARD}"))}


def add_results(results: Results, folder: Path, about: Provenance | None = None) -> list[Path]:
    """Add result rows to the standing leaderboard.

    Numbers are rounded to 7 significant digits. Rows that are there already are kept once. Of two values of the same
    video that differ by at most TOLERANCE, the stored one is kept.

    Args:
        results: the rows and their records, such as `read_results` returns them.
        folder: the folder of the standing leaderboard; it is created if it does not exist.
        about: what is known about the rows.

    Returns:
        the paths of the methods' records, also of those that were there already.

    Raises:
        Damaged: a stored file is not what was written.
        UserError: a row contradicts a stored row; a row has another video of the same pair and revision; the same data
            have another origin; or another revision of a method has the same training seed.
    """
    about = about or Provenance()
    there = read_boards(folder)
    made = (replace(method, environment=about.environment) for method in _methods(results, about.training_seeds))
    new = [_with_stored_values(method, there) for method in made]
    # Every contradiction is found before a file is written.
    stored = [part for board in there.values() for part in _parts(board, folder)]
    combined([*stored, *(part_of(method, Path("the new rows")) for method in new)])
    texts: dict[Path, str] = {}
    for name, some in _by_folder(new).items():
        before = there.get(name, Board(_table_key(some[0]), ()))
        evaluators = _without_copies([*before.evaluators, *about.evaluators])
        board = replace(before, methods=_merged(before.methods, some), evaluators=evaluators)
        _check_seeds(board)
        texts |= {inside(folder, name, file): text for file, text in board_files(board).items()}
    for path, text in texts.items():
        write_text(path, text)
    return [inside(folder, folder_of(_table_key(method)), record_name(method)) for method in new]


def _parts(board: Board, folder: Path) -> Iterable[Part]:
    return [part_of(method, folder / folder_of(board.key) / record_name(method)) for method in board.methods]


def _methods(results: Results, seeds: Mapping[str, int]) -> list[Method]:
    """The rows of each revision of a method in each table, with rounded numbers."""
    number, keys = grouped(results.table, FILE_KEYS)
    known = {tuple(record.key[name] for name in FILE_KEYS): record for record in results.records}
    found = []
    for i, values in enumerate(keys):
        key = dict(zip(FILE_KEYS, map(str, values), strict=True))
        record = known.get(tuple(key.values())) or FileRecord.of({}, key)
        if key["method"] in seeds:
            record = replace(record, method=replace(record.method, training_seeds=(seeds[key["method"]],)))
        rows = results.table.take(pa.array(np.flatnonzero(number == i))).select(SCHEMA.names)
        found.append(Method(record, [_rounded(row) for row in rows.to_pylist()]))
    return found


def _rounded(row: Row) -> Row:
    value = row["value"]
    return {**row, "value": float(short(value))} if isinstance(value, float) else row


def _with_stored_values(method: Method, boards: Mapping[str, Board]) -> Method:
    """The method with the stored row in place of each row that scored the same video with the same result.

    Two machines can differ in the last digits of a value, and such values are not a contradiction.
    """
    board = boards.get(folder_of(_table_key(method)))
    same = [one for one in board.methods if _identity(one) == _identity(method)] if board else []
    stored = {(row["pair_id"], row["signature"]): row for one in same for row in one.rows}
    rows = [_settled(row, stored.get((row["pair_id"], row["signature"]))) for row in method.rows]
    return replace(method, rows=rows)


def _settled(row: Row, stored: Row | None) -> Row:
    if stored is None or stored["video_sha256"] != row["video_sha256"]:
        return row
    old, new = stored["value"], row["value"]
    if isinstance(old, float) and isinstance(new, float) and abs(old - new) <= TOLERANCE * max(1.0, abs(old)):
        return stored
    return row


def _by_folder(methods: Iterable[Method]) -> dict[str, list[Method]]:
    found: dict[str, list[Method]] = {}
    for method in methods:
        found.setdefault(folder_of(_table_key(method)), []).append(method)
    return found


def _table_key(method: Method) -> dict[str, str]:
    return {name: method.record.key[name] for name in TABLE_KEYS}


def _identity(method: Method) -> tuple[str, str]:
    return method.record.key["method"], method.record.key["revision"]


def _merged(before: Sequence[Method], new: Sequence[Method]) -> list[Method]:
    """All methods, sorted. A stored method gets the new rows that it does not have."""
    found = {_identity(method): method for method in before}
    for method in new:
        old = found.get(_identity(method), method)
        rows = {(row["pair_id"], row["signature"]): row for row in (*method.rows, *old.rows)}
        seeds = method.record.method.training_seeds or old.record.method.training_seeds
        facts = replace(old.record.method, training_seeds=seeds)
        environment = old.environment or method.environment
        found[_identity(method)] = Method(replace(old.record, method=facts), list(rows.values()), environment)
    return [found[name] for name in sorted(found)]


def _check_seeds(board: Board) -> None:
    """Raises UserError if two revisions of a method have the same training seed."""
    found: dict[tuple[str, int], str] = {}
    for method in board.methods:
        name, revision = _identity(method)
        for seed in method.record.method.training_seeds:
            if found.setdefault((name, seed), revision) != revision:
                raise UserError(
                    f"{name} with the training seed {seed} is there already as revision {found[name, seed]}; remove "
                    f"its files, or give revision {revision} another seed with --training-seed"
                )


def _without_copies(cards: Iterable[Mapping[str, object]]) -> list[Mapping[str, object]]:
    return list({str(card): card for card in cards}.values())
