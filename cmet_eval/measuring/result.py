"""The result of a measurement: its rows, the mean of each metric, and both as a table, Markdown, LaTeX, CSV or JSON."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from cmet_eval.measuring.protocol_files import Protocol
from cmet_leaderboards.digits import fixed
from cmet_leaderboards.escaping import csv_cell, markdown
from cmet_leaderboards.row import ResultRow
from cmet_metrics.base import Aggregate, Metric, Score
from talking_face.packages import require
from talking_face.reasons import Reason

if TYPE_CHECKING:
    import pandas as pd

_LATEX = {
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{char: f"\\{char}" for char in "&%$#_{}"},
}


@dataclass(frozen=True)
class Mean:
    """The mean of one metric over all cases."""

    metric: Metric
    signature: str
    aggregate: Aggregate

    @property
    def arrow(self) -> str:
        """The direction of better values: `↑`, `↓`, or `→` and the ideal value."""
        ideal = self.metric.ideal
        return f"→{ideal:g}" if ideal is not None else "↑" if self.metric.higher_is_better else "↓"

    @property
    def text(self) -> str:
        """The mean as text.

        `∞`: every scored video is identical to its ground truth. `–`: no video has a value.
        """
        return self.number(self.aggregate.mean)

    @property
    def spread(self) -> str:
        """The standard deviation as text; `–` for fewer than two values."""
        return "–" if self.aggregate.std is None else self.number(self.aggregate.std)

    def number(self, value: float | None) -> str:
        """A value of this metric as text: two decimals if the metric has a unit, else three."""
        if value is None:
            return "∞" if self.aggregate.infinite and not self.aggregate.sums.get("values") else "–"
        return fixed(value, 2 if self.metric.unit else 3)

    @property
    def coverage(self) -> str:
        """How many cases have a value, such as `9/10`. Infinite values count as scored and are named."""
        found, infinite = self.aggregate, self.aggregate.infinite
        scored = found.n if self.metric.pooled else found.n + infinite
        return f"{scored}/{found.N}" + (f" ({infinite} ∞)" if infinite else "")

    @property
    def shortfall(self) -> str:
        """The coverage in brackets if a case has no value, or an infinite one; else an empty text."""
        whole = f"{self.aggregate.N}/{self.aggregate.N}"
        return "" if self.coverage == whole else f" ({self.coverage})"


@dataclass(frozen=True, repr=False)
class Measured:
    """What `cmet_eval.measure` returns.

    Attributes:
        rows: one row per case and metric, with a value or a reason. The fields are those of stored result rows.
        metrics: the metrics, in the order of the rows of a case.
        method: the name of the measured videos.
        target: the name of the ground truths; "" without ground truth.
        notes: lines about files that were not used.
        protocol: the protocol that set metrics and rules, or None.
    """

    rows: tuple[ResultRow, ...]
    metrics: tuple[Metric, ...]
    method: str
    target: str
    notes: tuple[str, ...] = ()
    protocol: Protocol | None = None

    @cached_property
    def means(self) -> tuple[Mean, ...]:
        """The mean of each metric."""
        out = []
        for metric in self.metrics:
            own = [row for row in self.rows if row.metric == metric.key]
            signature = own[0].signature if own else ""
            out.append(Mean(metric, signature, metric.aggregate(map(_score, own), len(own))))
        return tuple(out)

    def __repr__(self) -> str:
        return f"Measured({self.method!r}, {self.as_dict()})"

    def __str__(self) -> str:
        """The table, reasons, notes and signatures, as the terminal shows them."""
        from cmet_eval.measuring.printing import summary  # it imports this module

        return summary(self)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return f"<pre>{html.escape(str(self))}</pre>"

    @property
    def lost(self) -> tuple[ResultRow, ...]:
        """The rows without a value, except infinite values."""
        return tuple(row for row in self.rows if row.reason not in (None, Reason.INFINITE.value))

    @property
    def table(self) -> pd.DataFrame:
        """One row per metric: mean, standard deviation, number of values and of cases, unit, signature."""
        frame: pd.DataFrame = _pandas().DataFrame(self._summary()).set_index("metric")
        return frame

    @property
    def per_clip(self) -> pd.DataFrame:
        """One row per case and one column per metric.

        A missing value is NaN. The value of a video that is identical to its ground truth can be inf.
        """
        names = [metric.key for metric in self.metrics]
        frame: pd.DataFrame = _pandas().DataFrame(self._values(), columns=["clip", *names]).set_index("clip")
        return frame

    def as_dict(self) -> dict[str, float]:
        """Key of a metric -> mean, for a logger. Metrics without a mean are left out."""
        return {one.metric.key: one.aggregate.mean for one in self.means if one.aggregate.mean is not None}

    def to_markdown(self, per_clip: bool = False) -> str:
        """A table in Markdown: one row per metric, or per case. A line before the table names the protocol."""
        before = f"{markdown(self.protocol_line)}\n\n" if self.protocol else ""
        if not per_clip:
            head = ("metric", "mean", "std", "n", "unit", "signature")
            return before + _markdown(head, [(*line, f"`{one.signature}`") for line, one in self.lines()])
        return before + _markdown(("clip", *self._titles()), self.printed())

    def to_latex(self, per_clip: bool = False) -> str:
        """A table in LaTeX (package booktabs): one row for the method, or one per case; a column per metric.

        Comments before the table state the protocol, and the signature and the coverage of each column.
        """
        comments = [f"% {self.protocol_line}"] if self.protocol else []
        comments += [f"% {one.metric.key}: n={one.coverage}, {one.signature}" for one in self.means]
        if per_clip:
            rows = self.printed()
        else:
            rows = [(self.method, *(f"{one.text}{one.shortfall}" for one in self.means))]
        head = " & ".join(["", *(_latex(title) for title in self._titles())])
        body = [" & ".join(map(_latex, row)) + r" \\" for row in rows]
        columns = "l" + "r" * len(self.means)
        table = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", rf"{head} \\", r"\midrule", *body]
        return "\n".join([*comments, *table, r"\bottomrule", r"\end{tabular}", ""])

    def to_csv(self, per_clip: bool = False) -> str:
        """CSV with all digits: one row per metric, or per case."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        if per_clip:
            writer.writerow(["clip", *(metric.key for metric in self.metrics)])
            writer.writerows([csv_cell(cell) for cell in row] for row in self._values())
        else:
            summary = self._summary()
            writer.writerow(list(summary))
            writer.writerows([csv_cell(cell) for cell in row] for row in zip(*summary.values(), strict=True))
        return out.getvalue()

    def to_json(self) -> str:
        """JSON with the means, all rows, and the notes."""
        summary = self._summary()
        means = [dict(zip(summary, row, strict=True)) for row in zip(*summary.values(), strict=True)]
        rows = [asdict(row) for row in self.rows]
        content = {
            **{"method": self.method, "target": self.target, "protocol": self._protocol_name},
            **{"means": means, "rows": rows, "notes": self.notes},
        }
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def _summary(self) -> dict[str, list[object]]:
        means = self.means
        return {
            "metric": [one.metric.key for one in means],
            "mean": [one.aggregate.mean for one in means],
            "std": [one.aggregate.std for one in means],
            "n": [one.aggregate.n for one in means],
            "N": [one.aggregate.N for one in means],
            "infinite": [one.aggregate.infinite for one in means],
            "unit": [one.metric.unit for one in means],
            "higher_is_better": [one.metric.higher_is_better for one in means],
            "ideal": [one.metric.ideal for one in means],
            "signature": [one.signature for one in means],
            "protocol": [self._protocol_name for _ in means],
        }

    @property
    def _protocol_name(self) -> str:
        return self.protocol.name if self.protocol else ""

    @property
    def protocol_line(self) -> str:
        """One line that names the protocol and its source; "" without protocol."""
        return f"protocol {self.protocol.name}: {self.protocol.title} ({self.protocol.source})" if self.protocol else ""

    def _titles(self) -> list[str]:
        return [f"{one.metric.title} ({one.metric.key.partition(':')[2]}) {one.arrow}" for one in self.means]

    def lines(self) -> list[tuple[tuple[str, ...], Mean]]:
        """For each metric: key with direction, mean, standard deviation, coverage and unit as text; and the `Mean`."""
        return [((f"{m.metric.key} {m.arrow}", m.text, m.spread, m.coverage, m.metric.unit), m) for m in self.means]

    def _values(self) -> list[list[object]]:
        """One list per case: its id and its values. A missing value is None, an infinite value is inf."""
        by_case: dict[str, dict[str, ResultRow]] = {}
        for row in self.rows:
            by_case.setdefault(row.pair_id, {})[row.metric] = row
        return [[name, *(_value(found[metric.key]) for metric in self.metrics)] for name, found in by_case.items()]

    def printed(self) -> list[tuple[str, ...]]:
        """For each case: its id, and its values or reasons as text."""
        by_key = {(row.pair_id, row.metric): row for row in self.rows}
        names = dict.fromkeys(row.pair_id for row in self.rows)
        return [(name, *(_cell(by_key[name, one.metric.key], one) for one in self.means)) for name in names]


def _score(row: ResultRow) -> Score:
    return Score(row.value, row.n, Reason(row.reason) if row.reason else None, row.detail, row.stats)


def _value(row: ResultRow) -> float | None:
    return float("inf") if row.reason == Reason.INFINITE.value else row.value


def _cell(row: ResultRow, mean: Mean) -> str:
    """The text of a cell: the value, `∞`, or the reason code of a missing value."""
    if row.value is None:
        return "∞" if row.reason == Reason.INFINITE.value else str(row.reason)
    return mean.number(row.value)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [[text if text.startswith("`") else markdown(text) for text in row] for row in rows]
    cells = [[text.replace("|", "\\|") if text.startswith("`") else text for text in row] for row in cells]
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *cells)]
    return "\n".join(lines) + "\n"


def _latex(text: str) -> str:
    arrows = {"↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\rightarrow$", "∞": r"$\infty$", "–": "--"}
    return "".join(_LATEX.get(char) or arrows.get(char) or char for char in text)


def _pandas():  # type: ignore[no-untyped-def]
    return require("pandas", "a table")
