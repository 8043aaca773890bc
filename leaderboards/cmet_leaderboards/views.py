"""Defines the records that the template `board.html.j2` reads: texts and numbers of tables, cells and videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from cmet_leaderboards.answer_text import AnswerText
from cmet_leaderboards.missing import Missing
from cmet_leaderboards.published import PublishedTable
from cmet_leaderboards.score_table import ScoreTable


class GalleryVideo(TypedDict):
    """One method's video of a pair."""

    method: str  # name of the method's folder, `file_name_of` of the method's name
    data: bytes  # MP4


class GalleryCase(TypedDict):
    """One pair, with the videos that the page plays."""

    pair: str
    speaker: str
    reference_emotion: str
    target_emotion: str
    videos: list[GalleryVideo]


Gallery = Mapping[str, Sequence[GalleryCase]]  # {name of the setting: its cases}


@dataclass(frozen=True)
class SiteLinks:
    """Addresses of other pages of the standing leaderboard, relative to a board's page."""

    home: str
    methods: Mapping[str, str]  # by method


@dataclass(frozen=True)
class PlayerView:
    """The videos of a table. The files are next to the page, and are loaded for the chosen methods only."""

    methods: list[tuple[str, bool]]  # title, and whether it is chosen at first
    cases: list[tuple[str, str, list[str]]]  # title, pair, and for each method the path of its video or an empty text
    data: str  # JSON of the same


@dataclass(frozen=True)
class ColumnView:
    """The head of a column in the sections below the scores."""

    name: str
    detail: str  # variant, unit, and the signature's fields that distinguish the metric's columns
    signature: str
    label: str


@dataclass(frozen=True)
class RowView:
    """What is known about one method, in the order of the score table."""

    title: str
    summary: str
    sees: str
    seeds: str  # the training seeds; empty if they are not known
    page: str  # address of the method's page; empty if it has none
    notes: list[str]
    command: str
    codec: str


@dataclass(frozen=True)
class HeatCellView:
    """One number of a heat map. `heat`, 0 to 99 as text, sets the tint of the cell."""

    text: str
    heat: str
    coverage: str = ""  # scored pairs of expected pairs, if some are missing
    correct: bool = False  # in a confusion matrix: the prediction is the target emotion


@dataclass(frozen=True)
class HeatRowView:
    """One line of a heat map."""

    title: str
    cells: list[HeatCellView]
    ceiling: bool = False


@dataclass(frozen=True)
class HeatView:
    """One heat map."""

    groups: list[tuple[str, str]]  # title of each column, and a smaller text below it
    rows: list[HeatRowView]


@dataclass(frozen=True)
class HeatCardView:
    """A card with several heat maps, of which one is opened."""

    id: str
    title: str
    corner: str  # the head of the first column
    caption: str
    picks: list[tuple[str, list[str], int]]  # what a reader chooses: label, options, the chosen one
    opened: HeatView
    data: str  # JSON of all heat maps for the page's script; empty if there is only one


@dataclass(frozen=True)
class DropCellView:
    """The drop of one method by one metric."""

    text: str
    half: str = ""
    kind: str = ""  # "worse" or "better" if the interval excludes 0


@dataclass(frozen=True)
class DropRowView:
    """The drops of one method."""

    title: str
    cells: list[DropCellView]


@dataclass(frozen=True)
class SensitivityView:
    """Kendall's tau between the variants of one metric."""

    name: str
    variants: list[str]
    lines: list[tuple[str, list[tuple[str, str]]]]  # variant, and (tau, heat) for each variant
    methods: int
    sentences: list[str]


@dataclass(frozen=True)
class SectionsView:
    """The answer of a table, and the sections below its scores."""

    answer: AnswerText
    gallery: PlayerView | None
    heat: list[HeatCardView]
    collapsed: list[HeatCardView]
    drops: list[DropRowView]
    sensitivity: list[SensitivityView]
    missing: list[Missing]
    not_asked: list[str]  # sentences
    plot: str  # JSON of the scatter plot


@dataclass(frozen=True)
class TableView:
    """One table of the page."""

    id: str
    title: str
    summary: str
    protocol: str
    differing_keys: list[tuple[str, str]]
    facts: list[tuple[str, str]]
    interval_note: str
    columns: list[ColumnView]
    scores: ScoreTable
    rows: list[RowView]
    sections: SectionsView
    bands: str
    missing_cells: tuple[str, ...]
    pair_notes: tuple[str, ...]
    published: tuple[PublishedTable, ...]
    published_heading: str
    published_note: str
    data_notes: list[str]  # what the data and the evaluators mean for the numbers
    key: list[tuple[str, str]]
    disjoint: str
    shared: str
