"""Writes the answer of a table as text: who is better at what, with p-values, and what is not separated.

Boards and pages use these texts. Titles of methods in them are as strangers wrote them, so a writer escapes a text.
Titles can contain commas. In a sentence, a title is therefore between NAME_START and NAME_END, two invisible
characters of Unicode (isolates). Records of result files cannot contain them. A writer can replace them with bold type.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cmet_leaderboards.answer import Answer, Finding
from cmet_leaderboards.formatting import column_title, p_value, signed
from cmet_leaderboards.grid import Column, MethodId
from cmet_leaderboards.statistics import ALPHA
from cmet_leaderboards.tables import UNRANKED_ROLES, Table
from talking_face.names import counted

NAME_START, NAME_END = "\u2068", "\u2069"
WEAK = "†"  # marks a p-value that the correction over all comparisons of the table lifts to ALPHA or above
_NAMED = 4  # the most methods that a statement names; else it counts them
_STATEMENTS = 3  # the most statements about one metric
_LONGEST = 1500  # the most characters of an answer that a page shows at once: a screen and a half of a phone
_IN_SHORT = 3  # the metrics of the short form of a longer answer
_LISTED = 50  # the most differences in the list; the JSON file has all


@dataclass(frozen=True)
class DifferenceLine:
    """One difference that a test shows, as texts."""

    metric: str
    better: str
    worse: str
    by: str
    interval: str
    p: str
    p_table: str


@dataclass(frozen=True)
class AnswerText:
    """The answer of a table as texts."""

    lead: str  # which method is better than every other, and by which metrics
    lines: tuple[tuple[str, str], ...]  # (metric, who is better than whom by it), for each metric with a difference
    same: tuple[str, ...]  # sentences about what is not separated, each stated once
    ceiling: tuple[str, ...]  # sentences about the ceiling and the methods
    note: str  # the test, and the number of comparisons that p is corrected for
    footnote: str  # what WEAK means; empty if no statement has it
    differences: tuple[DifferenceLine, ...]  # the first differences between ranked methods
    found: int  # number of all differences between ranked methods
    short: tuple[tuple[str, str], ...] = ()  # (metric, its first statement) of a few metrics; empty: not needed


def answer_text(table: Table) -> AnswerText:
    """The answer of a table as text."""
    words = _Words(table)
    family = table.answer.ranked
    findings = sorted(family.findings, key=words.place)
    shown = [one for one in findings if words.of_interest(one.better, one.worse)]
    weak = any(not one.holds_in_table for one in (*shown, *table.answer.ceiling.findings))
    statements = [(words.metric(column), words.statements(some)) for column, some in _by_column(shown)]
    lines = [(metric, "; ".join(some)) for metric, some in statements]
    same, ceiling = tuple(words.not_separated(shown)), tuple(words.against_ceiling())
    long = sum(map(len, (*(text for _, text in lines), *same, *ceiling))) > _LONGEST
    return AnswerText(
        words.lead(),
        tuple(lines),
        same,
        ceiling,
        _note(table.answer, weak) if family.comparisons else "",
        f"{WEAK} p is {ALPHA:g} or more after a correction over all metrics." if weak else "",
        tuple(_difference(words, one) for one in findings[:_LISTED]),
        len(findings),
        tuple((metric, some[0]) for metric, some in statements[:_IN_SHORT]) if long else (),
    )


def listing(names: Iterable[str], last: str = "and") -> str:
    """Names in one text: `a`, `a and b`, or `a, b and c`."""
    *most, end = list(names)
    return f"{', '.join(most)} {last} {end}" if most else end


def p_text(p: float, relation: str = "=") -> str:
    """A p-value as text, such as `p = 0.012` or `p < 0.001`."""
    text = p_value(p)
    return f"p {relation} {text}" if text[0] != "<" else f"p < {text[1:]}"


def _by_column(findings: Sequence[Finding]) -> list[tuple[Column, list[Finding]]]:
    found: dict[str, list[Finding]] = {}  # by signature: a text has its hash stored, a Column computes it each time
    for one in findings:
        found.setdefault(one.column.signature, []).append(one)
    return [(some[0].column, some) for some in found.values()]


def _note(answer: Answer, weak: bool) -> str:
    """The test as text. `weak`: whether a statement has WEAK."""
    family, ceiling = answer.ranked, answer.ceiling
    counts = sorted({count for _, count in family.compared})
    each = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    text = (
        "p: paired t-test over speakers, and over training seeds if several are known, after Holm's correction over "
        f"the {each} comparisons of two methods by the same metric, as for the ranks. A difference is stated if "
        f"p < {ALPHA:g} and it exceeds the noise band. Not separated does not mean equal."
    )
    if weak:
        text += (
            f" {WEAK}: it no longer holds if p is corrected over all {family.comparisons} comparisons of this table."
        )
    elif family.findings:
        text += f" Every stated difference also holds if p is corrected over all {family.comparisons} comparisons."
    if ceiling.comparisons:
        text += f" The {ceiling.comparisons} comparisons with the ground truth have both corrections of their own."
    return text


class _Words:
    """Writes sentences about the methods and metrics of one table."""

    def __init__(self, table: Table) -> None:
        self.table = table
        rows = {(row.method, row.revision): row for row in table.rows}
        self.titles: Mapping[MethodId, str] = {
            method: f"{NAME_START}{row.title}{NAME_END}" for method, row in rows.items()
        }
        self.order = {method: i for i, method in enumerate(rows)}
        self.roles = {method: row.role for method, row in rows.items()}
        self.columns = table.columns  # emotion metrics first if the pairs ask for an emotion
        self.places = {column.signature: i for i, column in enumerate(table.columns)}
        self.losses = [
            {m: cell.loss for m, row in rows.items() if (cell := row.cells[i]) and cell.loss is not None}
            for i in range(len(table.columns))
        ]
        ranked = [method for method, role in self.roles.items() if role not in UNRANKED_ROLES]
        methods = [method for method in ranked if self.roles[method] == "method"]
        self.contenders = methods if len(methods) > 1 else ranked

    def place_of(self, column: Column) -> int:
        """The position of a column in the table."""
        return self.places[column.signature]

    def place(self, one: Finding) -> tuple[int, float, int]:
        """In the order of the columns; within a metric, the findings of the better methods first."""
        column = self.places[one.column.signature]
        return column, self.losses[column].get(one.better, 0.0), self.order[one.worse]

    def of_interest(self, one: MethodId, two: MethodId) -> bool:
        """Whether a statement compares a method with something; two floors are left to the list."""
        kinds = {self.roles[one], self.roles[two]}
        return "method" in kinds or "method" not in self.roles.values()

    def metric(self, column: Column) -> str:
        """The metric's title; with its variant if the table has several columns of this title."""
        several = sum(other.name == column.name for other in self.columns) > 1
        return column_title(column) if several else column.name

    def metrics(self, columns: Iterable[Column], last: str = "and") -> str:
        """The titles of several metrics, in the order of the answer."""
        return listing((self.metric(column) for column in sorted(columns, key=self.place_of)), last)

    def names(self, methods: Iterable[MethodId], last: str = "and") -> str:
        """The titles of several methods, in the order of the table."""
        return listing((self.titles[method] for method in sorted(methods, key=lambda m: self.order[m])), last)

    def lead(self) -> str:
        """Which contender is better than every other contender, and by which metrics."""
        compared = [column for column, _ in self.table.answer.ranked.compared]
        if len(self.contenders) < 2 or not compared:
            return "Fewer than two methods have scores on common pairs, so nothing is compared."
        wins: dict[MethodId, list[tuple[Column, float, bool]]] = {}
        for column, some in _by_column(self.table.answer.ranked.findings):
            for winner in self.contenders:
                beaten = {one.worse: one for one in some if one.better == winner and one.worse in self.contenders}
                if len(beaten) == len(self.contenders) - 1:
                    worst = max(beaten.values(), key=lambda one: one.p_table)
                    wins.setdefault(winner, []).append((column, worst.p, worst.holds_in_table))
        return " ".join([*self._wins(wins), self._undecided(compared, wins)]).strip()

    def _wins(self, wins: Mapping[MethodId, Sequence[tuple[Column, float, bool]]]) -> Iterable[str]:
        for winner, won in sorted(wins.items(), key=lambda item: self.place_of(item[1][0][0])):
            won = sorted(won, key=lambda item: self.place_of(item[0]))
            by = listing(f"{self.metric(c)} ({_p(p, holds, self._relation())})" for c, p, holds in won)
            yield f"{self.titles[winner]} is better than {self._other(winner)} by {by}."

    def _other(self, winner: MethodId) -> str:
        others = [method for method in self.contenders if method != winner]
        return self.titles[others[0]] if len(others) == 1 else f"each of the other {len(others)} methods"

    def _relation(self) -> str:
        return "=" if len(self.contenders) == 2 else "≤"

    def _undecided(self, compared: Sequence[Column], wins: Mapping[MethodId, Sequence[object]]) -> str:
        left = len(compared) - sum(map(len, wins.values()))
        if not left:
            return ""
        if len(self.contenders) == 2:
            none = f"None of the {left}" if left > 1 else "The one"
            other = "The other metric" if left == 1 else f"The other {left} metrics"
            which = other if wins else f"{none} {'metrics' if left > 1 else 'metric'}"
            verb = ("do" if left > 1 else "does") + " not separate" if wins or left == 1 else "separates"
            one, two = (self.titles[method] for method in self.contenders)
            return f"{which} {verb} {one} from {two}."
        other = "the other metric" if left == 1 else f"the other {left} metrics"
        which = other if wins else counted(left, "metric")
        return f"By {which}, no method is better than every other method."

    def statements(self, findings: Sequence[Finding]) -> list[str]:
        """Who is better than whom by one metric. Methods that are better than the same methods share a statement."""
        by_winner: dict[MethodId, list[Finding]] = {}
        for one in findings:
            by_winner.setdefault(one.better, []).append(one)
        groups: dict[tuple[MethodId, ...], list[list[Finding]]] = {}
        for some in by_winner.values():
            groups.setdefault(tuple(one.worse for one in some), []).append(some)
        shown = list(groups.items())
        texts = [self._statement(worse, winners) for worse, winners in shown[:_STATEMENTS]]
        rest = sum(len(worse) * len(winners) for worse, winners in shown[_STATEMENTS:])
        return [*texts, *([f"and {counted(rest, 'more difference')}"] if rest else [])]

    def _statement(self, worse: Sequence[MethodId], winners: Sequence[Sequence[Finding]]) -> str:
        subject = [some[0].better for some in winners]
        several = len(subject) > _NAMED
        who = f"{len(subject)} methods" if several else listing(map(self._subject, subject))
        verb = "are" if len(subject) > 1 else "is"
        every = [one for some in winners for one in some]
        if len(worse) > _NAMED or len(subject) > 1:
            whom = f"{len(worse)} methods" if len(worse) > _NAMED else self.names(worse)
            relation = "=" if len(every) == 1 else "≤"
            return f"{who} {verb} better than {whom} ({_p_of(every, relation)})"
        whom = listing(f"{self.titles[one.worse]} ({_p_of([one])})" for one in every)
        return f"{who} {verb} better than {whom}"

    def _subject(self, method: MethodId) -> str:
        """The title; a floor that is better than a method is called a floor."""
        floor = self.roles[method] == "floor" and "method" in self.roles.values()
        return f"the floor {self.titles[method]}" if floor else self.titles[method]

    def not_separated(self, shown: Sequence[Finding]) -> Iterable[str]:
        """The metrics that separate no two methods, and the methods that no metric separates."""
        family = self.table.answer.ranked
        separating = {one.column.signature for one in shown}
        idle = [column for column, _ in family.compared if column.signature not in separating]
        if idle and shown:
            yield f"No method is separated from another by {self.metrics(idle, 'or')}."
        pairs = [sorted(pair, key=self._subject_place) for pair in family.together if self.of_interest(*pair)]
        if len(self.contenders) == 2:  # the lead already says that nothing separates these two
            pairs = [pair for pair in pairs if set(pair) != set(self.contenders)]
        if not shown and pairs:
            other = "other " if len(self.contenders) == 2 else ""
            yield f"No metric separates any {other}two methods."
            return
        others: dict[MethodId, list[MethodId]] = {}
        for first, second in sorted(pairs, key=lambda pair: [self._subject_place(m) for m in pair]):
            others.setdefault(first, []).append(second)
        texts = [self._from(method, some) for method, some in others.items()]
        more = f"; and {len(texts) - _NAMED} more methods" if len(texts) > _NAMED else ""
        if texts:
            yield f"Not separated by any metric: {'; '.join(texts[:_NAMED])}{more}."

    def _subject_place(self, method: MethodId) -> tuple[bool, int]:
        return self.roles[method] != "method", self.order[method]

    def _from(self, method: MethodId, others: Sequence[MethodId]) -> str:
        some = f"{len(others)} others" if len(others) > _NAMED else self.names(others)
        return f"{self.titles[method]} from {some}"

    def against_ceiling(self) -> Iterable[str]:
        """By which metrics the ceilings are better than the methods, and where the tests do not show it."""
        family = self.table.answer.ceiling
        for ceiling in [method for method, role in self.roles.items() if role == "ceiling"]:
            worse: dict[frozenset[MethodId], list[Column]] = {}
            by_column = {column.signature: some for column, some in _by_column(family.findings)}
            for column, _ in family.compared:
                mine = [one for one in by_column.get(column.signature, ()) if one.better == ceiling]
                worse.setdefault(frozenset(one.worse for one in mine), []).append(column)
            for beaten, columns in sorted(worse.items(), key=lambda item: -len(item[0])):
                every = [one for column in columns for one in by_column.get(column.signature, ())]
                mine = [one for one in every if one.better == ceiling]
                yield self._ceiling_sentence(ceiling, beaten, columns, mine)
            above = [one for one in family.findings if one.worse == ceiling]
            for column, mine in _by_column(above):
                verb = "are" if len(mine) > 1 else "is"
                names = self.names(one.better for one in mine) if len(mine) <= _NAMED else f"{len(mine)} methods"
                p = _p_of(mine, "=" if len(mine) == 1 else "≤")
                yield f"{names} {verb} better than {self.titles[ceiling]} by {self.metric(column)} ({p})."

    def _ceiling_sentence(
        self, ceiling: MethodId, beaten: frozenset[MethodId], columns: Sequence[Column], findings: Sequence[Finding]
    ) -> str:
        methods = [method for method, role in self.roles.items() if role == "method"]
        title, by = self.titles[ceiling], self.metrics(columns)
        if not beaten:
            return f"By {by}, no method is shown to be worse than {title}."
        few = len(beaten) <= _NAMED
        whom = (
            "every method"
            if len(beaten) == len(methods) > 1
            else self.names(beaten)
            if few
            else f"{len(beaten)} methods"
        )
        text = f"{title} is better than {whom} by {by} ({_p_of(findings, '=' if len(findings) == 1 else '≤')})"
        rest = [method for method in methods if method not in beaten]
        return (
            f"{text}; {self.names(rest)} {'is' if len(rest) == 1 else 'are'} not separated from it."
            if rest
            else f"{text}."
        )


def _difference(words: _Words, one: Finding) -> DifferenceLine:
    """A finding as a line of the list."""
    ends = one.interval
    between = f"{signed(ends.low, one.column)} to {signed(ends.high, one.column)}" if ends else "–"
    return DifferenceLine(
        words.metric(one.column),
        words.table.name(one.better),
        words.table.name(one.worse),
        signed(one.by, one.column),
        between,
        p_text(one.p),
        p_text(one.p_table),
    )


def _p(p: float, holds: bool, relation: str = "=") -> str:
    return p_text(p, relation) + ("" if holds else WEAK)


def _p_of(findings: Sequence[Finding], relation: str = "=") -> str:
    """The largest p of several findings, marked if one of them does not hold in the whole table."""
    return _p(max(one.p for one in findings), all(one.holds_in_table for one in findings), relation)
