"""Checks a table of result rows: the types of its columns, nulls, names, numbers, reasons, and the keys of the file.

Rows can come from a stranger. Each different text is checked only once, so a million rows take about 0.2 s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from cmet_leaderboards.row import check_setting_name
from cmet_metrics.registry import find_record
from talking_face.names import check_id, check_label, check_name, printable
from talking_face.origin import ORIGINS, origin_by_name
from talking_face.reasons import Reason

LONGEST_TEXT = 1000  # characters of one text in a row
_UNPRINTABLE = r"[\p{C}\p{Zl}\p{Zp}]"  # control characters, unassigned characters, line and paragraph separators
_REASONS = pa.array([reason.value for reason in Reason])


_NAMES: Mapping[str, Callable[[str], str]] = {
    **{"setting": check_setting_name, "method": check_name, "revision": check_label, "metric": check_label},
    **{"profile": check_label, "suite_version": check_label, "pair_id": check_id},
}


def check_rows(table: pa.Table, schema: pa.Schema, required: Sequence[str], keys: Sequence[str]) -> None:
    """Checks the rows of one file.

    Args:
        table: the rows; a column of text can be a dictionary.
        schema: the names and types of the columns.
        required: the columns that must not contain nulls.
        keys: the columns in which all rows of a file agree.

    Raises:
        ValueError: a column has a wrong name or type; a text is not a name or cannot be printed; a number is not
            finite; a row has both a value and a reason, or neither; a reason is unknown; rows differ in a key column;
            the direction of a metric of this suite is wrong; or the name of a speaker proves another origin.
    """
    if table.schema.names != schema.names:
        raise ValueError(f"columns {', '.join(sorted(set(table.schema.names) ^ set(schema.names))) or 'in disorder'}")
    for field in schema:
        found = table.schema.field(field.name).type
        if (found.value_type if pa.types.is_dictionary(found) else found) != field.type:
            raise ValueError(f"the column {field.name} has the type {found} and not {field.type}")
    table.validate(full=True)  # also checks that texts are UTF-8
    for name in required:
        if table[name].null_count:
            raise ValueError(f"the column {name} has an empty cell")
    _check_texts(table, [field.name for field in schema if field.type == pa.string()])
    _check_numbers(table)
    for name in keys:
        if len(pc.unique(table[name])) > 1:
            raise ValueError(f"its rows have several values of {name}")
    _check_directions(table)
    _check_origins(table)


def _check_texts(table: pa.Table, names: Sequence[str]) -> None:
    texts = {name: _texts(table[name]) for name in names}
    every = pa.concat_arrays(texts.values())
    if _any(pc.greater(pc.utf8_length(every), LONGEST_TEXT)):
        raise ValueError(f"it holds a text of more than {LONGEST_TEXT} characters")
    unprintable = every.filter(pc.match_substring_regex(every, _UNPRINTABLE))
    if len(unprintable):
        raise ValueError(f"{printable(unprintable[0].as_py()[:60])!r} holds characters that cannot be printed")
    unknown = texts["reason"].filter(pc.invert(pc.is_in(texts["reason"], _REASONS)))
    if len(unknown):
        raise ValueError(f"{unknown[0].as_py()[:60]!r} is not a reason")
    for name, check in _NAMES.items():
        for text in texts[name].to_pylist():
            try:
                check(text)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None


def _texts(column: pa.ChunkedArray) -> pa.Array:
    """The different texts of a column. If the column is a dictionary, some of these texts can be in no row."""
    parts = [chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk.unique() for chunk in column.chunks]
    return pa.concat_arrays([pa.array([], pa.string()), *parts]).drop_null()


def _any(mask: pa.Array | pa.ChunkedArray) -> bool:
    return bool(pc.any(mask, min_count=0).as_py())


def _check_numbers(table: pa.Table) -> None:
    for name in ("value", "ideal"):
        if _any(pc.invert(pc.is_finite(table[name]))):
            raise ValueError(f"a number of {name} is not finite")
    if _any(pc.equal(table["value"].is_null(), table["reason"].is_null())):
        raise ValueError("a row has both a value and a reason, or none of them")
    if _any(pc.less(table["n"], 0)):
        raise ValueError("a number of n is negative")
    for chunk in table["stats"].chunks:
        if chunk.items.null_count or _any(pc.invert(pc.is_finite(chunk.items))):
            raise ValueError("a number of stats is not finite")


def _check_directions(table: pa.Table) -> None:
    """Compares the direction or the ideal value of each metric of this suite with the metric's record."""
    facts = ["metric", "higher_is_better", "ideal"]
    for row in table.select(facts).group_by(facts).aggregate([]).to_pylist():
        known = find_record(row["metric"])
        if known is None or known.key != row["metric"]:
            continue
        if row["ideal"] != known.ideal or (known.ideal is None and row["higher_is_better"] != known.higher_is_better):
            raise ValueError(f"higher_is_better or ideal of {row['metric']} is wrong")


def _check_origins(table: pa.Table) -> None:
    """Compares the origin with what the names of the speakers prove."""
    facts = ["dataset", "speaker", "origin"]
    for row in table.select(facts).group_by(facts).aggregate([]).to_pylist():
        if row["origin"] not in ORIGINS:
            raise ValueError(f"{row['origin']!r} is not an origin of data: {', '.join(ORIGINS)}")
        proven = origin_by_name(row["dataset"], row["speaker"] or "")
        allowed = {"drawn": ("drawn", "mixed"), "recorded": ("recorded", "mixed", "unknown")}.get(proven, ORIGINS)
        if row["origin"] not in allowed:
            raise ValueError(f"speaker {row['speaker']} of {row['dataset']} is {proven}, and not {row['origin']}")
