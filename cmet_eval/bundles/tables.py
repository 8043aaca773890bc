"""Turns the result rows of one table into the text files of a bundle, and reads these files back as result rows.

The fields of a pair (speaker, emotions, clips) are not stored with the values: they are taken from the pair list. The
facts of a metric are stored once. So a bundle cannot contradict itself in them.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cmet_eval.bundles.form import (
    PAIRS,
    SAMPLE,
    SUFFIX,
    VALUE_COLUMNS,
    VALUES,
    VIDEO_COLUMNS,
    VIDEOS,
    Fault,
    MethodPart,
    Refused,
    TablePart,
    check_text,
)
from cmet_eval.bundles.sample import sample_of
from cmet_eval.measuring.rows import pair_fields
from cmet_eval.protocol.pair_files import pairs_text, read_pairs
from cmet_eval.protocol.pairs import PairList, pair_file_name
from cmet_leaderboards.escaping import csv_cell, csv_text
from cmet_leaderboards.row import ResultRow
from talking_face.clip import Pair
from talking_face.reasons import Reason, UserError
from talking_face.signature import canonical_json
from talking_face.user_files import CsvRow, csv_rows, read_text

_HEX = frozenset("0123456789abcdef")
_REASONS = frozenset(reason.value for reason in Reason)
_MOST_UNITS = 2**31  # of `n`


@dataclass(frozen=True)
class VideoPart:
    """One row of videos.csv."""

    sha256: str  # empty: the pair has no video
    suffix: str  # of the file's name, without the dot; empty: the pair has no video
    codec: str


@dataclass(frozen=True)
class BundleTable:
    """One table of a bundle as it was read: its fields, its pairs and its rows."""

    part: TablePart
    folder: str  # its folder in the bundle
    pair_list: PairList
    videos: Mapping[str, VideoPart]  # by pair_id, for every pair
    rows: tuple[ResultRow, ...]  # one per pair and metric

    @property
    def sample(self) -> dict[str, str]:
        """pair_id -> path in the bundle, for the videos that the digest of the pair list chooses."""
        chosen = sample_of(self.pair_list, [pair for pair, video in self.videos.items() if video.sha256])
        return {pair: sample_path(self.folder, pair, self.videos[pair].suffix) for pair in chosen}


def sample_path(folder: str, pair_id: str, suffix: str) -> str:
    """The path of a pair's video in a bundle. `folder`: that of the table."""
    return f"{folder}/{SAMPLE}/{pair_file_name(pair_id)}.{suffix}"


# -- writing -----------------------------------------------------------------------------------------------------------


def videos_text(pair_list: PairList, videos: Mapping[str, VideoPart]) -> str:
    """The text of videos.csv: one row for each pair, in the order of the list."""
    parts = ((pair.pair_id, videos[pair.pair_id]) for pair in pair_list.pairs)
    return _csv(VIDEO_COLUMNS, [(pair, part.sha256, part.suffix, part.codec) for pair, part in parts])


def values_text(pair_list: PairList, part: TablePart, rows: Sequence[ResultRow]) -> str:
    """The text of values.csv: one row for each metric and pair, in the order of the table's metrics and of the list."""
    index = {metric.signature: i for i, metric in enumerate(part.metrics)}
    place = {pair.pair_id: i for i, pair in enumerate(pair_list.pairs)}
    ordered = sorted(rows, key=lambda row: (index[row.signature], place[row.pair_id]))
    lines = [
        (
            *(row.pair_id, index[row.signature], row.value, row.reason, row.detail, row.n),
            canonical_json({name: float(value) for name, value in row.stats.items()}) if row.stats else "",
            row.notes,
        )
        for row in ordered
    ]
    return _csv(VALUE_COLUMNS, lines)


def _csv(columns: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([csv_cell(cell) for cell in line] for line in lines)
    return buffer.getvalue()


# -- reading -----------------------------------------------------------------------------------------------------------


def read_table(root: Path, folder: str, part: TablePart, method: MethodPart) -> BundleTable:
    """Reads and checks the text files of a table.

    Args:
        root: the folder of the bundle.
        folder: the table's folder in it.
        part: the fields of the table in `bundle.json`.
        method: the method of the bundle.

    Raises:
        Refused: a pair, a video or a value is absent, is there twice, or is not allowed.
    """
    pair_list = _read_pair_list(root / folder / PAIRS, part)
    pairs = {pair.pair_id: pair for pair in pair_list.pairs}
    where = f"{part.key['setting']}, "
    videos = _read_videos(root / folder / VIDEOS, pairs, where)
    rows = _read_values(root / folder / VALUES, part, pairs, where)
    shared = {**part.key, "method": method.name, "revision": method.revision}
    made = tuple(_row(line, part, pairs[pair], videos[pair], shared) for (pair, _), line in rows.items())
    texts = {PAIRS: pairs_text(pair_list), VIDEOS: videos_text(pair_list, videos)}
    for name, text in {**texts, VALUES: values_text(pair_list, part, made)}.items():
        if (root / folder / name).read_bytes() != text.encode():  # for example other digits, order or line ends
            raise Refused(Fault.NOT_CANONICAL, f"{where}{name} has another form than `cmet-eval submit` writes")
    return BundleTable(part, folder, pair_list, videos, made)


def _read_pair_list(path: Path, part: TablePart) -> PairList:
    try:
        found = read_pairs(path)
    except UserError as error:
        text = str(error).replace(str(path), PAIRS)
        raise Refused(Fault.FOREIGN_PAIRS, text) from None
    key, name = part.key, part.key["setting"]
    if found.setting != name or found.digest != key["pairs_digest"]:
        text = f"the rows of {name} are of the pair list {key['pairs_digest'][:60]}, the bundle's has {found.digest}"
        raise Refused(Fault.FOREIGN_PAIRS, text)
    if found.rules != key["rules"]:
        text = f"the pairs of {name} follow the rules {found.rules[:60]}, the rows {key['rules'][:60]}"
        raise Refused(Fault.FOREIGN_SETTING, text)
    if found.data_digest != key["data_digest"]:
        text = (
            f"the pairs of {name} are from the data {found.data_digest[:12]}, the rows from {key['data_digest'][:12]}"
        )
        raise Refused(Fault.OTHER_DATA, text)
    for note in (*found.missing, *found.notes):
        check_text(note, f"a note of the pair list of {name}")
    return found


def _lines(path: Path, columns: Sequence[str], where: str) -> list[CsvRow]:
    try:
        rows = csv_rows(read_text(path, "file"), path.name, columns)
    except UserError as error:
        raise Refused(Fault.BAD_FIELD, f"{where}{str(error).replace(str(path), path.name)}") from None
    if rows and tuple(rows[0].cells) != tuple(columns):
        raise Refused(Fault.BAD_FIELD, f"{where}{path.name} has other columns than {', '.join(columns)}")
    return rows


def _read_videos(path: Path, pairs: Mapping[str, Pair], where: str) -> dict[str, VideoPart]:
    found: dict[str, VideoPart] = {}
    for line in _lines(path, VIDEO_COLUMNS, where):
        cells = {name: csv_text(cell) for name, cell in line.cells.items()}
        pair, video = cells["pair"], VideoPart(cells["sha256"], cells["suffix"], cells["codec"])
        _check_pair(pair, pairs, found, where + path.name)
        if video.sha256 and (len(video.sha256) != 64 or not _HEX.issuperset(video.sha256)):
            raise Refused(Fault.NO_HASH, f"{where}{pair}: {video.sha256[:70]!r} is not a SHA-256")
        if bool(video.sha256) != bool(SUFFIX.fullmatch(video.suffix)) or (video.suffix and not video.sha256):
            raise Refused(Fault.BAD_FIELD, f"{where}{pair}: {video.suffix[:20]!r} is not the suffix of a video file")
        check_text(video.codec, f"{where}{pair}: the codec", 100)
        found[pair] = video
    _check_all(pairs, found, where + path.name)
    return found


def _check_pair(pair: str, pairs: Mapping[str, Pair], found: Mapping[str, object], where: str) -> None:
    if pair not in pairs:
        raise Refused(Fault.UNKNOWN_PAIR, f"{where}: {pair[:100]!r} is not in the pair list")
    if pair in found:
        raise Refused(Fault.DUPLICATE_PAIR, f"{where}: {pair} has two rows")


def _check_all(pairs: Mapping[str, Pair], found: Mapping[str, object], where: str) -> None:
    if absent := [pair for pair in pairs if pair not in found]:
        text = f"{where} has no row of {absent[0]}" + (f" and {len(absent) - 1} more" if absent[1:] else "")
        raise Refused(Fault.ABSENT_PAIR, f"{text}; a pair without a value has a row with a reason")


def _read_values(path: Path, part: TablePart, pairs: Mapping[str, Pair], where: str) -> dict[tuple[str, int], CsvRow]:
    """The rows by pair and metric."""
    found: dict[int, dict[str, CsvRow]] = {i: {} for i in range(len(part.metrics))}
    for line in _lines(path, VALUE_COLUMNS, where):
        text = line.cells["metric"]
        metric = int(text) if text.isascii() and text.isdigit() and len(text) < 5 else -1
        if metric not in found:
            raise Refused(Fault.UNKNOWN_METRIC, f"{where}line {line.line} of {path.name}: no metric {text[:40]!r}")
        pair = csv_text(line.cells["pair"])
        _check_pair(pair, pairs, found[metric], f"{where}{part.metrics[metric].metric} in {path.name}")
        found[metric][pair] = line
    for metric, rows in found.items():
        _check_all(pairs, rows, f"{where}{part.metrics[metric].metric} in {path.name}")
    return {(pair, metric): line for metric, rows in found.items() for pair, line in rows.items()}


def _row(line: CsvRow, part: TablePart, pair: Pair, video: VideoPart, shared: Mapping[str, str]) -> ResultRow:
    metric = part.metrics[int(line.cells["metric"])]
    cells = {name: csv_text(cell) for name, cell in line.cells.items()}
    where = f"{part.key['setting']}, {pair.pair_id}, {metric.metric}"
    value = _number(cells["value"], where) if cells["value"] else None
    reason = cells["reason"] or None
    if (value is None) == (reason is None) or (reason is not None and reason not in _REASONS):
        raise Refused(Fault.VALUE_OR_REASON, f"{where}: the row needs either a value or a known reason")
    if value is not None and not video.sha256:
        raise Refused(Fault.NO_HASH, f"{where} has a value, but the pair has no SHA-256 of a video")
    return ResultRow(
        **shared,  # type: ignore[arg-type]
        **pair_fields(pair),
        **metric.model_dump(),
        value=value,
        reason=reason,
        detail=check_text(cells["detail"], f"{where}: the detail"),
        n=_count(cells["n"], where),
        stats=_stats(cells["stats"], where),
        notes=check_text(cells["notes"], f"{where}: the notes"),
        codec=video.codec,
        video_sha256=video.sha256 or None,
    )


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise Refused(Fault.BAD_FIELD, f"{where}: {text[:40]!r} is not a number") from None
    if not math.isfinite(value):
        raise Refused(Fault.NOT_FINITE, f"{where}: {text[:40]!r} is not finite")
    return value


def _count(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 11 and int(text) < _MOST_UNITS):
        raise Refused(Fault.BAD_FIELD, f"{where}: {text[:40]!r} is not a number of frames")
    return int(text)


def _stats(text: str, where: str) -> dict[str, float]:
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, float) for value in found.values()):
        raise Refused(Fault.BAD_FIELD, f"{where}: the stats are not a JSON object of numbers")
    for name, value in found.items():
        check_text(name, f"{where}: the name of a statistic", 100)
        _number(repr(value), where)
    return found
