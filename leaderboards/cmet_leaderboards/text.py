"""Boards as Markdown. The same tables give the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cmet_leaderboards.grid import Column, MethodId
from cmet_leaderboards.published import HEADING, NOTE
from cmet_leaderboards.sections import Confusion, Sensitivity
from cmet_leaderboards.tables import APART, Breakdown, Cell, Table
from cmet_leaderboards.wording import (
    RULES,
    column_title,
    coverage,
    distance,
    facts,
    half_width,
    interval_note,
    named_values,
    number,
    rank,
)

_NAMED = 8  # comparisons that a sentence lists; the JSON has all


def to_markdown(tables: Sequence[Table]) -> str:
    """All tables, each with its breakdowns, losses and signatures."""
    out = ["# Leaderboard", ""]
    for table in tables:
        out += _markdown_table(table)
    out += ["## How to read it", "", *(f"- **{name}**: {text}" for name, text in RULES), ""]
    return "\n".join(out)


def _markdown_table(table: Table) -> list[str]:
    out = [f"## {_escape(table.title)}", "", _escape(table.setting.summary), "", facts(table), ""]
    if table.apart:
        out += [f"Not comparable with the setting's other tables: {named_values(table.apart)}.", ""]
    head = ["Method", *(_title(column) for column in table.columns)]
    body = []
    for row in table.rows:
        name = f"{row.title} ({row.role})" if row.role in APART else row.title
        cells = zip(table.columns, row.cells, strict=True)
        body.append([name, *(_markdown_cell(column, cell) for column, cell in cells)])
    out += _grid(head, body)
    bands = f" Noise bands: {table.bands}." if table.bands else " No noise band applies."
    out += [interval_note(table) + bands + " Rank after #, coverage in brackets.", ""]
    for name, parts in (("target emotion", table.by_emotion), ("speaker", table.by_speaker)):
        for part in parts:
            out += [f"### {_title(part.column)} by {name}", "", *_breakdown(part)]
    out += _drops(table)
    for found in table.confusions:
        for one in found:
            out += _confusion(table, one)
    for found_ in table.sensitivity:
        out += _sensitivity(table, found_)
    if table.flows:
        out += ["By reference and target emotion: in the CSV, the JSON and on the page.", ""]
    if table.losses:
        lines = [[x.method, ", ".join(x.metrics), str(x.count), x.reason, x.detail] for x in table.losses]
        out += ["### What is missing", "", *_grid(["Method", "Metrics", "Pairs", "Reason", "For example"], lines)]
    out += [f"Pairs: {_escape(note)}." for note in table.pair_notes] + [""] * bool(table.pair_notes)
    out += _published(table)
    out += ["### Signatures", ""]
    out += [f"- {_escape(column_title(column))}: {_code(column.signature)}" for column in table.columns]
    out += [f"- {name.replace('_', ' ')}: {_code(value)}" for name, value in table.key.items() if name != "setting"]
    out += [f"- {_escape(row.title)}: {_code(row.command)}" for row in table.rows if row.command]
    return [*out, ""]


def _title(column: Column) -> str:
    return f"{column_title(column)} {column.arrow}"


def _grid(head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table and an empty line."""
    lines = ["| " + " | ".join(map(_escape, line)) + " |" for line in (head, *body)]
    return [lines[0], "|---" * len(head) + "|", *lines[1:], ""]


def _markdown_cell(column: Column, cell: Cell | None) -> str:
    if cell is None:
        return "not scored"
    value = number(cell.mean, column)
    if (half := half_width(cell)) is not None:
        value += f" ± {number(half, column)}"
    if cell.best:
        value = f"**{value}**"
    extra = [f"#{rank(cell)}"] if cell.rank is not None else []
    extra += [distance(cell, column)] if distance(cell, column) else []
    return " ".join([value, *extra, f"({coverage(cell)})"])


def _breakdown(part: Breakdown) -> list[str]:
    body = []
    for title, cells in part.rows:
        texts = []
        for cell, expected in zip(cells, part.pairs, strict=True):
            text = number(cell.mean, part.column) if cell else "–"
            texts.append(text if cell and cell.scored == expected else f"{text} ({cell.scored if cell else 0})")
        body.append([title, *texts])
    return _grid(["Method", *(f"{g} ({n})" for g, n in zip(part.groups, part.pairs, strict=True))], body)


def _drops(table: Table) -> list[str]:
    """How much worse each method is than on a neutral base."""
    if not table.drops:
        return []
    found = {(drop.method, drop.column.signature): drop.change for drop in table.drops}
    body = []
    for row in table.rows:
        texts = []
        for column in table.columns:
            change = found.get(((row.method, row.revision), column.signature))
            if change is None:
                texts.append("–")
                continue
            interval = change.interval
            half = "" if interval is None else f" ± {number((interval.high - interval.low) / 2, column)}"
            texts.append(f"{number(change.mean, column)}{half}")
        body.append([row.title, *texts])
    note = "Positive: worse than in neutral-base by so much. Each speaker is compared with itself; 95% intervals."
    return ["### Drop from neutral-base", "", note, "", *_grid(["Method", *map(_title, table.columns)], body)]


def _confusion(table: Table, one: Confusion) -> list[str]:
    body = []
    for meant, line in zip(one.meant, one.clips, strict=True):
        total = float(line.sum())
        body.append([meant, f"{total:g}", *(f"{100 * x / total:.0f}%" if total else "–" for x in line)])
    title = f"### Confusion of {column_title(one.column)}: {_escape(table.name(one.method))}"
    return [title, "", *_grid(["asked for", "clips", *one.said], body)]


def _sensitivity(table: Table, found: Sensitivity) -> list[str]:
    names = [column_title(column) for column in found.columns]
    body = [
        [name, *("–" if tau is None else f"{tau:.2f} ({n})" for tau, n in zip(taus, counts, strict=True))]
        for name, taus, counts in zip(names, found.tau, found.methods, strict=True)
    ]
    out = [f"### Does the ranking survive the choice of {found.columns[0].name}?", ""]
    out += ["Kendall's tau between the rankings of the same videos (methods ranked):", "", *_grid(["", *names], body)]
    out += [f"- {_escape(text)}" for text in survivors(table, found)]
    return [*out, ""]


def survivors(table: Table, found: Sensitivity) -> list[str]:
    """What becomes of each comparison of two methods under the variants, in words."""

    total = sum(map(len, (found.agreed, found.opposed, found.partly, found.open)))

    def line(say: str, some: Sequence[tuple[MethodId, MethodId]], between: str) -> str:
        names = [f"{table.name(a)} {between} {table.name(b)}" for a, b in some[:_NAMED]]
        more = f" and {len(some) - _NAMED} more" if len(some) > _NAMED else ""
        return f"{say} in {len(some)} of {total} comparisons of two methods: {'; '.join(names)}{more}."

    kinds = (
        ("Every variant finds the same one better", found.agreed, "before"),
        ("Variants contradict one another", found.opposed, "against"),
        ("Some variants find one better where others see a tie", found.partly, "before"),
        ("Every variant sees a tie", found.open, "and"),
    )
    return [line(say, some, between) for say, some, between in kinds if some]


def _published(table: Table) -> list[str]:
    out = [f"### {HEADING}", "", NOTE, ""] if table.published else []
    for part in table.published:
        out += [f"#### {_escape(part.title)}", "", *_grid(["Method", *part.metrics], part.lines())]
        out += [_escape(part.protocol), ""]
    return out


def _code(text: str) -> str:
    return "`" + text.replace("`", "'").replace("\n", " ") + "`"


def _escape(text: str) -> str:
    """Table cells hold no pipe, no line break and no HTML."""
    for a, b in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("\n", " ")):
        text = text.replace(a, b)
    return text
