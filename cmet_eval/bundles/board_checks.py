"""Compares a bundle with the rows of the standing leaderboard, and adds its rows to them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from cmet_baselines.registry import catalogue
from cmet_eval.bundles.form import Fault, Refused
from cmet_eval.bundles.reading import Bundle
from cmet_eval.bundles.suite_checks import plain
from cmet_eval.bundles.tables import BundleTable
from cmet_eval.protocol.setting import get_setting
from cmet_eval.reports.standing import evaluator_cards
from cmet_eval.runs.score_submissions import board_record
from cmet_eval.runs.submissions import Submission
from cmet_leaderboards.results import Results, read_results, write_results
from cmet_leaderboards.row import TABLE_KEYS
from cmet_leaderboards.standing import Provenance, add_results, read_boards, read_standing
from cmet_metrics.registry import get_metric
from talking_face.scratch import scratch_folder


def check_board(bundle: Bundle, folder: Path) -> None:
    """Checks the bundle against the rows of the standing leaderboard.

    Args:
        bundle: the bundle.
        folder: the folder of the standing leaderboard; see `cmet_leaderboards.standing`. It can be empty.

    Raises:
        Refused: the board has this method and revision in one of these tables; another method has its title; all its
            videos are those of another method; or an evaluator is another one than in the board's rows of these data.
    """
    if not read_boards(folder):
        return
    board = read_standing(folder)
    _check_titles(bundle, board)
    for table in bundle.tables:
        rows = _where(board.table, {name: table.part.key[name] for name in TABLE_KEYS})
        method, revision = bundle.method.name, bundle.method.revision
        if _where(rows, {"method": method, "revision": revision}).num_rows:
            text = f"the board has rows of {method} @ {revision} in {table.part.key['setting']} already"
            raise Refused(Fault.DUPLICATE_METHOD, f"{text}; name another revision")
        _check_seed(bundle, rows, board)
        _check_evaluators(table, _where(board.table, {"data_digest": table.part.key["data_digest"]}))
        if method not in catalogue():
            _check_copies(table, rows, method)


def merge(bundle: Bundle, folder: Path, data: Path) -> list[Path]:
    """Adds the rows of a bundle to the standing leaderboard; returns the paths of the method's records.

    Args:
        bundle: the bundle.
        folder: the folder of the standing leaderboard.
        data: the shard set, whose evaluators have cards.
    """
    seed = bundle.method.training_seed
    about = Provenance(
        environment=bundle.environment.facts(),
        evaluators=evaluator_cards(data),
        training_seeds={} if seed is None else {bundle.method.name: seed},
    )
    with scratch_folder() as scratch:
        write_rows(bundle, scratch)
        return add_results(read_results(scratch), folder, about)


def write_rows(bundle: Bundle, folder: Path) -> None:
    """Writes the rows of a bundle as files of result rows."""
    for table in bundle.tables:
        write_results(table.rows, folder, board_record(_submission(bundle, table)))


def _submission(bundle: Bundle, table: BundleTable) -> Submission:
    setting = get_setting(table.part.key["setting"])
    place = bundle.folder / table.folder
    return Submission(bundle.method.model_dump(), setting, table.pair_list, place, command=table.part.command)


def _where(table: pa.Table, values: dict[str, str]) -> pa.Table:
    """The rows that have these values."""
    for name, value in values.items():
        table = table.filter(pc.equal(table[name].cast(pa.string()), value))
    return table


def _check_titles(bundle: Bundle, board: Results) -> None:
    for record in board.records:
        name = record.key.get("method", "")
        if name == bundle.method.name:
            continue
        if plain(bundle.method.title) in (plain(name), plain(record.method.title)):
            text = f"{bundle.method.title!r} is the title of {name} on the board; choose another --title"
            raise Refused(Fault.FOREIGN_METHOD, text)


def _check_seed(bundle: Bundle, rows: pa.Table, board: Results) -> None:
    """Raises Refused if another revision in the same table has the same training seed."""
    method = bundle.method
    there = _texts(_where(rows, {"method": method.name})["revision"])
    same = [r for r in board.records if r.key["method"] == method.name and r.key["revision"] in there]
    for record in same:
        if method.training_seed in record.method.training_seeds:
            text = f"the training seed {method.training_seed} of {method.name} is there as {record.key['revision']}"
            raise Refused(Fault.DUPLICATE_METHOD, text)


def _check_evaluators(table: BundleTable, rows: pa.Table) -> None:
    """Compares the signatures of the metrics with an evaluator with those of the board on the same data."""
    for part in table.part.metrics:
        if get_metric(part.metric).evaluator is None:
            continue
        known = _texts(_where(rows, {"metric": part.metric})["signature"])
        if known and part.signature not in known:
            text = f"{part.metric} has the signature {part.signature}, the board's rows of these data {min(known)}"
            raise Refused(Fault.FOREIGN_SIGNATURE, text)


def _check_copies(table: BundleTable, rows: pa.Table, method: str) -> None:
    """Raises Refused if every video of the table is that of another method for the same pair."""
    own = {(pair, video.sha256) for pair, video in table.videos.items() if video.sha256}
    found: dict[str, set[tuple[str, str]]] = {}
    for row in rows.select(["method", "pair_id", "video_sha256"]).to_pylist():
        if row["method"] != method:
            found.setdefault(row["method"], set()).add((row["pair_id"], row["video_sha256"]))
    for other, videos in sorted(found.items()):
        if own and own <= videos:
            raise Refused(Fault.COPIED_VIDEOS, f"all videos of {table.part.key['setting']} are those of {other}")


def _texts(column: Iterable[pa.Scalar]) -> set[str]:
    return {str(text.as_py()) for text in column}
