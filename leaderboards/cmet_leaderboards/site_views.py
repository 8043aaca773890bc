"""Makes the records that the templates of the site read: the index, a page per method, and a page per metric."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cmet_leaderboards import formatting, metric_facts
from cmet_leaderboards.bands import Bands
from cmet_leaderboards.grid import Column, MethodId
from cmet_leaderboards.tables import Cell, Table
from talking_face.signature import digest


@dataclass(frozen=True)
class MethodAbout:
    """What the catalogue knows about a method."""

    paper: str = ""  # title, venue and year
    code: str = ""  # address of the authors' code
    licence: str = ""
    bibtex: str = ""
    departures: tuple[tuple[str, str, str], ...] = ()  # topic, what the paper does, what is done here
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Runnable:
    """A method that can be run on the pairs of a board by anyone who has its weights."""

    name: str
    title: str
    summary: str
    command: str  # what a user types first


@dataclass(frozen=True)
class Video:
    """One video of a board: a pair by a method."""

    title: str  # speaker and emotions
    method: str
    file: str  # path below the folder of the board


@dataclass(frozen=True)
class BoardPages:
    """One board of the site."""

    slug: str  # name of its folder
    table: Table  # means over training seeds
    seeds: Table  # the same rows, one per training seed
    videos: tuple[Video, ...] = ()
    environments: Mapping[MethodId, str] = field(default_factory=dict)
    evaluators: tuple[Mapping[str, object], ...] = ()  # cards


@dataclass(frozen=True)
class ScoreView:
    """One number of a list of scores."""

    value: str = ""  # empty: not scored
    half: str = ""
    rank: str = ""
    note: str = ""  # share of the way, and the coverage if it is not complete
    best: bool = False


@dataclass(frozen=True)
class HeadView:
    """The head of a line or a column of scores: a method, one of its training seeds, or a metric."""

    title: str
    detail: str = ""
    href: str = ""
    role: str = "method"


@dataclass(frozen=True)
class ScoresView:
    """The scores of one board on the page of a method or a metric."""

    title: str
    href: str  # of the board's folder
    data: str
    notes: list[str]
    corner: str  # the head of the first column
    columns: list[HeadView]
    lines: list[tuple[HeadView, list[ScoreView]]]
    interval_note: str
    videos: list[Video]
    made: list[tuple[str, str]]  # revision or signature, and how it was made


class Slugs:
    """File names for the pages of methods and metrics: letters, digits, dots and hyphens. Different names differ."""

    def __init__(self, names: Iterable[str]) -> None:
        plain = {name: re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.") or "x" for name in names}
        count = Counter(text.lower() for text in plain.values())
        self._of = {n: text if count[text.lower()] == 1 else f"{text}-{digest(n, 8)}" for n, text in plain.items()}

    def __getitem__(self, name: str) -> str:
        return self._of[name]


def score(cell: Cell | None, column: Column) -> ScoreView:
    """The number of a cell as texts."""
    if cell is None:
        return ScoreView()
    notes = [formatting.distance(cell, column)] if formatting.distance(cell, column) else []
    notes += [] if cell.complete and cell.compared and not cell.infinite else [formatting.coverage(cell)]
    return ScoreView(
        value=formatting.mean(cell, column),
        half=formatting.half_width(cell.interval, column),
        rank=formatting.rank(cell),
        note=" · ".join(notes),
        best=cell.best,
    )


def method_scores(board: BoardPages, method: str, metrics: Slugs) -> ScoresView | None:
    """The scores of one method on a board, one line per metric; None if the board does not have the method.

    The columns are the method, each of its training seeds if the method is a mean, and the ceilings for comparison.
    """
    table, mine = board.table, [row for row in board.table.rows if row.method == method]
    if not mine:
        return None
    singles = sorted((row for row in board.seeds.rows if row.method == method), key=lambda row: row.training_seeds)
    seeds = [row for row in singles if (row.method, row.revision) not in table.methods]
    others = [row for row in table.rows if row.role == "ceiling" and row.method != method]
    heads = [HeadView(row.title, formatting.seeds_text(row.training_seeds), role=row.role) for row in mine]
    heads += [HeadView(f"training seed {', '.join(map(str, row.training_seeds))}", role="single") for row in seeds]
    heads += [HeadView(row.title, role=row.role) for row in others]
    lines = []
    for i, column in enumerate(table.columns):
        head = HeadView(formatting.column_label(column), href=f"../metrics/{metrics[column.metric]}.html")
        cells = [score(row.cells[i], column) for row in (*mine, *others)]
        # The rank of one seed is a rank among all seeds of all methods, so it is not shown.
        cells[len(mine) : len(mine)] = [replace(score(row.cells[i], column), rank="", best=False) for row in seeds]
        lines.append((head, cells))
    made = []
    for row in singles:
        parts = (f"revision {row.revision}", formatting.seeds_text(row.training_seeds))
        name = " · ".join(part for part in parts if part)
        where = board.environments.get((row.method, row.revision), "")
        made.append((name, " · ".join(part for part in (row.command, row.codec, where) if part)))
    videos = [video for video in board.videos if video.method == method]
    return _scores(board, ("Metric", heads, lines), table.columns, videos, made)


def metric_scores(board: BoardPages, metric: str, methods: Slugs) -> ScoresView | None:
    """The scores of all methods by one metric on a board, best first; None if the board does not have the metric."""
    table = board.table
    chosen = [i for i, column in enumerate(table.columns) if column.metric == metric]
    if not chosen:
        return None
    columns = [table.columns[i] for i in chosen]
    lines = []
    for row in sorted(table.rows, key=lambda row: _worse(row.cells[chosen[0]])):
        head = HeadView(
            row.title, formatting.seeds_text(row.training_seeds), f"../methods/{methods[row.method]}.html", row.role
        )
        lines.append((head, [score(row.cells[i], table.columns[i]) for i in chosen]))
    heads = [HeadView(formatting.column_label(column)) for column in columns]
    made = [(formatting.column_label(column), column.signature) for column in columns]
    made += [_card(card) for card in board.evaluators if card.get("kind") == metric_facts.evaluator(metric)]
    return _scores(board, ("Method", heads, lines), columns, [], made)


def _card(card: Mapping[str, object]) -> tuple[str, str]:
    """The card of an evaluator as a name and one line."""
    facts = [f"{name.replace('_', ' ')} {value}" for name, value in card.items() if name != "kind"]
    return f"evaluator: {card['kind']}", " · ".join(facts)


def _scores(
    board: BoardPages,
    content: tuple[str, list[HeadView], list[tuple[HeadView, list[ScoreView]]]],
    shown: Sequence[Column],
    videos: list[Video],
    made: list[tuple[str, str]],
) -> ScoresView:
    table, (corner, columns, lines) = board.table, content
    return ScoresView(
        title=table.title,
        href=f"../boards/{board.slug}",
        data=formatting.facts(table),
        notes=formatting.data_notes(table, shown),
        corner=corner,
        columns=columns,
        lines=lines,
        interval_note=formatting.interval_note(table),
        videos=videos,
        made=made,
    )


def _worse(cell: Cell | None) -> tuple[bool, float]:
    """Sort key: the lowest loss first; a value of infinity is the best, and an absent value is the last."""
    if cell is None or (cell.loss is None and not cell.infinite):
        return True, 0.0
    return False, float("-inf") if cell.loss is None else cell.loss


def band_texts(bands: Bands, boards: Iterable[BoardPages], metric: str) -> list[str]:
    """The noise bands of the metric on the boards, as texts with their sources."""
    found = []
    for board in boards:
        of_data = bands.for_origin(board.table.key["origin"])
        for column in (column for column in board.table.columns if column.metric == metric):
            if band := of_data.of(column.signature):
                found.append(f"{formatting.number(band, column)} {column.unit}".strip() + f" ({of_data.about})")
    return list(dict.fromkeys(found))
