"""Formats numbers and facts for all boards: digits, intervals, coverage, and the texts that explain them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cmet_leaderboards import digits, metric_facts
from cmet_leaderboards.grid import Column
from cmet_leaderboards.statistics import ALPHA, MIN_COVERAGE, MIN_SPEAKERS, Interval
from cmet_leaderboards.tables import Cell, MethodRow, Table
from talking_face.names import counted
from talking_face.origin import data_name, origin_note

RULES: tuple[tuple[str, str], ...] = (
    (
        "Mean",
        "over pairs, each with equal weight, on the pairs that every compared method has a value for. "
        "A pooled metric is computed from sums over those pairs.",
    ),
    (
        "Interval",
        f"95%, Student's t on speaker means (a delete-one-speaker jackknife, the same where all speakers have "
        f"equally many pairs). With fewer than {MIN_SPEAKERS} speakers it is over clips and holds for these speakers "
        "only.",
    ),
    (
        "Training seeds",
        "where a method was trained several times, its row is the mean over the training seeds. Its interval and its "
        "tests add the variance over seeds to the variance over speakers.",
    ),
    (
        "Coverage",
        f"scored pairs of expected pairs. A method with less than {MIN_COVERAGE:.0%} is shown with its own mean and is "
        "not compared, because it would leave few common pairs.",
    ),
    (
        "∞ on k of n",
        "identical frames have no finite PSNR. Such pairs count as scored, and are left out of the mean.",
    ),
    (
        "Rank",
        "1 + the number of methods shown to be better, without ceilings and controls; = after it means a tie. Two "
        "methods tie unless a paired t-test on speaker means (the interval's own t, on their common pairs) gives "
        f"p < {ALPHA:g} after Holm's correction over all pairs of methods of the column. With fewer than "
        f"{MIN_SPEAKERS} speakers the test is over clips and holds for these speakers only. Bold: the best mean.",
    ),
    (
        "Share of the way",
        "0% is the best floor of the metric, 100% the ground truth, and a share below 0% is worse than the floor. "
        f"It is given only if the paired test finds the floor worse than the ground truth (p < {ALPHA:g}).",
    ),
    (
        "Noise band",
        "how much re-encoding, or moving the crop by a pixel, changes a metric, from calibration. A difference "
        "inside it is a tie, whatever its p-value. ≈ after a rank means that all ties are of this kind.",
    ),
    (
        "→1",
        "nearer to that value is better. The mean is of the values; the rank uses their mean distance from it, "
        "which the cell or its pop-up states.",
    ),
    (
        "Signature",
        "it states how a number was made. Numbers with different signatures are in different columns; numbers from "
        "other data, pairs, rules or suite versions are in different tables.",
    ),
)


def decimals(column: Column) -> int:
    """The number of digits after the decimal point: two if the metric has a unit, such as dB or px, else three."""
    return 2 if column.unit else 3


def number(value: float | None, column: Column) -> str:
    """A value of this column as text (see `digits.fixed`); an en dash for None."""
    return "–" if value is None else digits.fixed(value, decimals(column))


def mean(cell: Cell, column: Column) -> str:
    """The mean as text: `∞` if all values are infinite, and an en dash if no pair has a value."""
    return "∞" if cell.mean is None and cell.infinite else number(cell.mean, column)


def rank(cell: Cell) -> str:
    """The rank as text, such as `1`. A tie adds ` =`, or ` ≈` if the noise band causes all ties. Empty if unranked."""
    if cell.rank is None:
        return ""
    mark = "" if not cell.ties else " ≈" if set(cell.ties.values()) == {"noise"} else " ="
    return f"{cell.rank}{mark}"


def distance(cell: Cell, column: Column) -> str:
    """The distance from the ideal value, such as `0.12 from 1`; empty if the metric has no ideal value."""
    if column.ideal is None or cell.loss is None:
        return ""
    return f"{number(cell.loss, column)} from {column.ideal:g}"


def signed(value: float, column: Column) -> str:
    """The same text as `number`, with a plus sign if the value is above 0."""
    text = number(value, column)
    return f"+{text}" if value > 0 and float(text) else text.replace("-", "−")


def p_value(p: float) -> str:
    """A p-value as text, such as `0.012` or `<0.001`."""
    return digits.fixed(p, 3) if p >= 0.001 else "<0.001"


def half_width(interval: Interval | None, column: Column) -> str:
    """Half of the length of an interval of this column as text; empty for None."""
    return number(interval.half, column) if interval else ""


def seeds_text(seeds: Sequence[int]) -> str:
    """The training seeds of a row as text; empty if they are not known."""
    if not seeds:
        return ""
    names = ", ".join(map(str, seeds))
    return f"mean over {len(seeds)} training seeds ({names})" if len(seeds) > 1 else f"training seed {names}"


def inputs(row: MethodRow) -> str:
    """The inputs that a method sees as text; empty if it declares none."""
    return ", ".join(name.replace("-", " ") for name in row.sees)


def interval_units(interval: Interval) -> str:
    """What the interval is over, such as `24 speakers and 3 training seeds`."""
    seeds = f" and {interval.seeds} training seeds" if interval.seeds > 1 else ""
    return f"{interval.units} {interval.over}{seeds}"


def coverage(cell: Cell) -> str:
    """The coverage as text: `32/32`, or with more details `30/32 · ∞ on 2 of 30 · mean of 28 common`."""
    parts = [f"{cell.scored}/{cell.expected}"]
    if cell.infinite:
        parts.append(f"∞ on {cell.infinite} of {cell.scored}")
    if not cell.compared:
        parts.append("not compared")
    elif cell.mean is not None and cell.n != cell.scored - cell.infinite and cell.n != cell.scored:
        parts.append(f"mean of {cell.n} common")
    return " · ".join(parts)


def interval_note(table: Table) -> str:
    """A sentence that states the unit of the table's intervals: speakers or clips."""
    kinds = {cell.interval.over for row in table.rows for cell in row.cells if cell is not None and cell.interval}
    if kinds == {"clips"} and not table.speakers:
        return "Intervals are over clips, because the speakers are not named."
    if kinds == {"clips"}:
        return f"Intervals are over clips: they hold for {counted(table.speakers, 'speaker')} only."
    if not kinds:
        return "Too few pairs for an interval."
    seeds = any(len(row.training_seeds) > 1 for row in table.rows)
    also = ", and over training seeds where a method has several" if seeds else ""
    text = f"Intervals are over {table.speakers} speakers{also}."
    return text if kinds == {"speakers"} else text + " Where too few speakers have a value they are over clips."


def column_title(column: Column) -> str:
    """The title, such as `M-LMD (eat, px)`. If the metric has several signatures, the differing fields are added."""
    return f"{column.name} ({', '.join(column.details)})" if column.details else column.name


def column_detail(column: Column) -> str:
    """What a page prints below the name of a column, such as `eat · px`."""
    return " · ".join(column.details)


def column_label(column: Column) -> str:
    """The title with the direction, such as `M-LMD (eat, px) ↓`."""
    return f"{column_title(column)} {column.arrow}"


def facts(table: Table) -> str:
    """One line with the table's facts: numbers of pairs, speakers and seeds, the data, the pair list and the suite."""
    pairs = f"{table.pairs} pairs" + (f" of {table.drawn} drawn" if table.drawn > table.pairs else "")
    return " · ".join(
        [
            pairs,
            *([counted(table.speakers, "speaker")] if table.speakers else []),
            *([counted(table.seeds, "seed")] if table.seeds else []),
            f"data {data_of(table)} {table.key['data_digest'][:8]}",
            f"pair list {table.key['pairs_digest'][:8]}",
            f"suite {table.key['suite_version']}, {table.key['profile']} evaluators",
        ]
    )


def data_of(table: Table) -> str:
    """The name of the table's data with their origin, such as `embedded corpus (drawn)`."""
    return data_name(table.key["dataset"], table.key["origin"])


def data_notes(table: Table, columns: Sequence[Column] | None = None) -> list[str]:
    """Sentences that state what the data and the evaluators of a table mean for its numbers; can be empty.

    `columns` are the columns that are shown; None: all.
    """
    notes = [origin_note(table.key["origin"])]
    if table.key["profile"] == "embedded":
        notes.append(
            "Evaluators of the profile embedded are networks from the package index, or were trained on this data set."
        )
    shown = dict.fromkeys(column.metric for column in columns or table.columns)
    own = [metric_facts.full_title(metric) for metric in shown if metric_facts.is_trained_on_data(metric)]
    if own:
        drawn = ", which are drawn faces" if table.key["origin"] == "drawn" else ""
        notes.append(f"The network of {', '.join(own)} was trained on the data set's training clips{drawn}.")
    return [note for note in notes if note]


def named_values(mapping: Mapping[str, str]) -> str:
    """Names and values in one line, such as `data digest abc, profile paper`."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in mapping.items())


def percent(share: float) -> str:
    """A share as whole percent, such as `34%` or `−50%`."""
    return digits.percent(share).replace("-", "−")
