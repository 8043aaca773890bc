"""Writes boards as Markdown. The same tables give the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cmet_leaderboards import published
from cmet_leaderboards.answer_text import NAME_END, NAME_START, answer_text
from cmet_leaderboards.digits import fixed, percent
from cmet_leaderboards.escaping import code, markdown
from cmet_leaderboards.formatting import (
    RULES,
    column_label,
    column_title,
    coverage,
    data_notes,
    distance,
    facts,
    half_width,
    interval_note,
    mean,
    named_values,
    number,
    rank,
    seeds_text,
)
from cmet_leaderboards.grid import Column
from cmet_leaderboards.missing import missing
from cmet_leaderboards.sections import Confusion, MethodPair, Sensitivity
from cmet_leaderboards.tables import UNRANKED_ROLES, Breakdown, Cell, Table

_NAMED = 8  # the most comparisons that a sentence lists; the JSON file has all of them


def to_markdown(tables: Sequence[Table]) -> str:
    """The Markdown of a board with these tables."""
    return markdown_file(list(map(markdown_table, tables)))


def markdown_file(tables: Sequence[str]) -> str:
    """The Markdown of a board, from the texts of its tables; see `markdown_table`."""
    rules = (f"- **{name}**: {text}" for name, text in RULES)
    return "\n".join(["# Leaderboard", "", *tables, "## How to read it", "", *rules, ""])


def markdown_table(table: Table) -> str:
    """One table as Markdown: a title, the scores, the sections below them, missing values and signatures."""
    out = [f"## {markdown(table.title)}", "", markdown(table.setting.summary), "", markdown(facts(table)), ""]
    out += [markdown(" ".join(data_notes(table))), ""] if data_notes(table) else []
    if table.differing_keys:
        out += [f"Not comparable with the setting's other tables: {markdown(named_values(table.differing_keys))}.", ""]
    out += _answer(table)
    out += _scores(table)
    for name, parts in (("target emotion", table.by_emotion), ("speaker", table.by_speaker)):
        for part in filter(lambda one: one.groups, parts):
            out += [f"### {markdown(column_label(part.column))} by {name}", "", *_breakdown(part)]
    out += _drops(table)
    for confusions in table.confusions:
        for confusion in confusions:
            out += _confusion(table, confusion)
    for sensitivity in table.sensitivity:
        out += _sensitivity(table, sensitivity)
    if table.transfers:
        out += ["By reference and target emotion: in the CSV, the JSON and on the page.", ""]
    out += _missing(table)
    out += [f"Pairs: {markdown(note)}." for note in table.pair_notes] + [""] * bool(table.pair_notes)
    out += _published(table)
    return "\n".join([*out, *_signatures(table), ""])


def _answer(table: Table) -> list[str]:
    """Who is better at what, from the paired tests."""
    found = answer_text(table)
    lines = [f"- {markdown(metric)}: {_named(text)}." for metric, text in found.lines]
    others = [_named(text) for text in (*found.same, *found.ceiling)]
    return [f"**{_named(found.lead, mark='')}**", "", *lines, *[""] * bool(lines), *others, "", found.note, ""]


def _named(text: str, mark: str = "**") -> str:
    """A text of the answer, with the names in it between two `mark`."""
    return markdown(text).replace(NAME_START, mark).replace(NAME_END, mark)


def _missing(table: Table) -> list[str]:
    lacking, not_asked = missing(table)
    lines = [[one.methods, one.metrics, str(one.count), one.reason, one.detail] for one in lacking]
    out = [*map(markdown, not_asked), ""] if not_asked else []
    out += _grid(["Method", "Metrics", "Pairs", "Reason", "For example"], lines) if lines else []
    return ["### What is missing", "", *out] if out else []


def _scores(table: Table) -> list[str]:
    body = []
    for row in table.rows:
        about = [row.role] if row.role in UNRANKED_ROLES else []
        about += [seeds_text(row.training_seeds)] if len(row.training_seeds) > 1 else []
        name = f"{row.title} ({', '.join(about)})" if about else row.title
        cells = zip(table.columns, row.cells, strict=True)
        body.append([name, *(_markdown_cell(column, cell) for column, cell in cells)])
    bands = f" Noise bands: {markdown(table.bands)}." if table.bands else " No noise band applies."
    note = interval_note(table) + bands + " Rank after #, coverage in brackets."
    return [*_grid(["Method", *map(column_label, table.columns)], body), note, ""]


def _signatures(table: Table) -> list[str]:
    """How the numbers were computed: metric signatures, keys of the table, and commands."""
    out = ["### Signatures", ""]
    out += [f"- {markdown(column_title(column))}: {code(column.signature)}" for column in table.columns]
    out += [f"- {name.replace('_', ' ')}: {code(value)}" for name, value in table.key.items() if name != "setting"]
    return out + [f"- {markdown(row.title)}: {code(row.command)}" for row in table.rows if row.command]


def _grid(head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table, followed by an empty line."""
    lines = ["| " + " | ".join(map(markdown, line)) + " |" for line in (head, *body)]
    return [lines[0], "|---" * len(head) + "|", *lines[1:], ""]


def _markdown_cell(column: Column, cell: Cell | None) -> str:
    if cell is None:
        return "not scored"
    value = _with_half(mean(cell, column), half_width(cell.interval, column))
    if cell.best:
        value = f"**{value}**"
    extra = [f"#{rank(cell)}"] if cell.rank is not None else []
    extra += [distance(cell, column)] if distance(cell, column) else []
    return " ".join([value, *extra, f"({coverage(cell)})"])


def _with_half(value: str, half: str) -> str:
    return f"{value} ± {half}" if half else value


def _breakdown(part: Breakdown) -> list[str]:
    body = []
    for title, cells in part.rows:
        texts = []
        for cell, expected in zip(cells, part.pairs, strict=True):
            text = mean(cell, part.column) if cell else "–"
            texts.append(text if cell and cell.scored == expected else f"{text} ({cell.scored if cell else 0})")
        body.append([title, *texts])
    return _grid(["Method", *(f"{g} ({n})" for g, n in zip(part.groups, part.pairs, strict=True))], body)


def _drops(table: Table) -> list[str]:
    """The section on how much worse each method is than in neutral-base; empty if the table has no drops."""
    if not table.drops:
        return []
    body = []
    for row in table.rows:
        texts = []
        for column in table.columns:
            change = table.drop(row, column)
            if change is None:
                texts.append("–")
                continue
            texts.append(_with_half(number(change.mean, column), half_width(change.interval, column)))
        body.append([row.title, *texts])
    note = (
        "Positive values: worse than in neutral-base by this much. Each speaker is compared with itself; 95% intervals."
    )
    return ["### Drop from neutral-base", "", note, "", *_grid(["Method", *map(column_label, table.columns)], body)]


def _confusion(table: Table, one: Confusion) -> list[str]:
    body = []
    for target, line in zip(one.targets, one.clips, strict=True):
        total = float(line.sum())
        body.append([target, f"{total:g}", *(percent(float(x) / total) if total else "–" for x in line)])
    title = f"### Confusion of {markdown(column_title(one.column))}: {markdown(table.name(one.method))}"
    return [title, "", *_grid(["asked for", "clips", *one.predictions], body)]


def _sensitivity(table: Table, found: Sensitivity) -> list[str]:
    names = [column_title(column) for column in found.columns]
    body = [
        [name, *("–" if tau is None else f"{fixed(tau, 2)} ({n})" for tau, n in zip(taus, counts, strict=True))]
        for name, taus, counts in zip(names, found.tau, found.methods, strict=True)
    ]
    out = [f"### Does the ranking survive the choice of {markdown(found.columns[0].name)}?", ""]
    out += ["Kendall's tau between the rankings of the same videos (methods ranked):", "", *_grid(["", *names], body)]
    out += [f"- {markdown(text)}" for text in agreement(table, found)]
    return [*out, ""]


def agreement(table: Table, found: Sensitivity) -> list[str]:
    """Sentences that state how far the variants of a metric agree on the comparisons of two methods."""
    total = sum(map(len, (found.agreed, found.opposed, found.partly, found.open)))

    def line(start: str, some: Sequence[MethodPair], between: str) -> str:
        names = [f"{table.name(a)} {between} {table.name(b)}" for a, b in some[:_NAMED]]
        more = f" and {len(some) - _NAMED} more" if len(some) > _NAMED else ""
        return f"{start} in {len(some)} of {total} comparisons of two methods: {'; '.join(names)}{more}."

    kinds = (
        ("Every variant finds the same method better", found.agreed, "before"),
        ("Variants contradict each other", found.opposed, "against"),
        ("Some variants find one method better, others a tie", found.partly, "before"),
        ("Every variant finds a tie", found.open, "and"),
    )
    return [line(start, some, between) for start, some, between in kinds if some]


def _published(table: Table) -> list[str]:
    origin = table.key["origin"]
    out = [f"### {published.heading(origin)}", "", published.note(origin), ""] if table.published else []
    for part in table.published:
        out += [f"#### {markdown(part.title)}", "", *_grid(["Method", *part.metrics], part.lines())]
        out += [markdown(" ".join([part.protocol, *part.origins()])), ""]
    return out
