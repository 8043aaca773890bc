"""Makes the heat maps of the page: means by emotion and by speaker, from emotion to emotion, and confusion matrices.

Each card shows one heat map at a time. The opened one is HTML, so that it needs no script. The others are compact
texts, which the page's script draws when a reader chooses a metric or a method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cmet_leaderboards import formatting
from cmet_leaderboards.digits import percent
from cmet_leaderboards.escaping import script_json
from cmet_leaderboards.grid import Column, MethodId
from cmet_leaderboards.sections import Confusion, EmotionTransfer
from cmet_leaderboards.tables import UNRANKED_ROLES, Breakdown, Cell, Table
from cmet_leaderboards.views import HeatCardView, HeatCellView, HeatRowView, HeatView
from talking_face.names import counted

OPENED = "emotion_leak"  # the family of metrics on which the heat maps open
_CARDS = 3  # the cards of a table that share the budget
_WRITTEN = 1000  # the most cells of a heat map that the page has as HTML; the script draws a larger one


@dataclass(frozen=True)
class _Card:
    """What is fixed for a card."""

    id: str
    title: str
    corner: str
    caption: str


def heat_cards(table: Table, budget: int) -> tuple[list[HeatCardView], list[HeatCardView]]:
    """The cards to show, and the cards to collapse.

    Args:
        table: the table.
        budget: the most numbers in all cards together. Each card shows at least one metric. The metrics that do not fit
            are left out, and the card says so.
    """
    each = budget // _CARDS
    shown = [_transfers(table, each), _breakdowns(table, table.by_emotion, "emotion", each), _confusions(table)]
    collapsed = [_breakdowns(table, table.by_speaker, "speaker", each)]
    return [card for card in shown if card], [card for card in collapsed if card]


def _breakdowns(table: Table, parts: Sequence[Breakdown], what: str, budget: int) -> HeatCardView | None:
    parts = sorted((part for part in parts if part.groups and part.rows), key=_opened_first)
    if not parts:
        return None
    most = max(1, budget // max(1, len(parts[0].groups) * len(parts[0].rows)))
    tint = "A deeper tint is better, among the methods below the ceiling; each metric has one scale."
    few = "With so few pairs in a cell, these are hints, not findings." if min(parts[0].pairs) < 12 else ""
    title = "By target emotion" if what == "emotion" else "By speaker"
    card = _Card(f"{what}s", title, "Method", " ".join(filter(None, (tint, few, _left_out(len(parts), most)))))
    shown = parts[:most]
    picks = [("Metric", [formatting.column_label(part.column) for part in shown])]
    return _card(card, picks, [_breakdown(part, table) for part in shown], 0)


def _opened_first(part: Breakdown | EmotionTransfer) -> bool:
    return part.column.family != OPENED


def _left_out(found: int, shown: int) -> str:
    return f"{shown} of {found} metrics are here; the CSV, Parquet and JSON files have all." if shown < found else ""


def _breakdown(part: Breakdown, table: Table) -> HeatView:
    """A metric by emotion or speaker. The colours cover the range of all methods except ceilings and controls."""
    ceilings = {row.title for row in table.rows if row.role in UNRANKED_ROLES}
    below = [cell for title, cells in part.rows if title not in ceilings for cell in cells]
    heat = _heat([cell.loss for cell in below if cell is not None and cell.loss is not None])

    def view(cell: Cell | None, expected: int) -> HeatCellView:
        if cell is None:
            return HeatCellView("–", "0", f"0/{expected}" if expected else "")
        return HeatCellView(
            formatting.mean(cell, part.column), heat(cell.loss), "" if cell.complete else f"{cell.scored}/{expected}"
        )

    rows = [
        HeatRowView(title, [view(*cell) for cell in zip(cells, part.pairs, strict=True)], title in ceilings)
        for title, cells in part.rows
    ]
    return HeatView(_groups(part.groups, part.pairs), rows)


def _groups(names: Sequence[str], pairs: Sequence[int]) -> list[tuple[str, str]]:
    return [(name, counted(count, "pair")) for name, count in zip(names, pairs, strict=True)]


def _heat(losses: Sequence[float]) -> Callable[[float | None], str]:
    """A function that gives the tint of a loss, `0` to `99`: the smallest of `losses` has the deepest."""
    best, worst = (min(losses), max(losses)) if losses else (0.0, 0.0)

    def heat(loss: float | None) -> str:
        if loss is None or worst <= best:
            return "0"
        return f"{99 * min(1.0, max(0.0, (worst - loss) / (worst - best))):.0f}"

    return heat


def _transfers(table: Table, budget: int) -> HeatCardView | None:
    transfers = sorted((one for one in table.transfers if one.rows), key=_opened_first)
    if not transfers:
        return None
    methods = [(row.method, row.revision) for row in table.rows]
    most = max(1, budget // max(1, transfers[0].pairs.size * len(methods)))
    caption = (
        "Rows: the emotion of the reference frames; columns: the target emotion. Means over the common pairs; a deeper "
        "tint is better, within this method."
    )
    card = _Card("flow", "From emotion to emotion", "from, to", " ".join([caption, _left_out(len(transfers), most)]))
    shown = transfers[:most]
    picks = [
        ("Metric", [formatting.column_label(one.column) for one in shown]),
        ("Method", [row.title for row in table.rows]),
    ]
    views = [_transfer(one, method) for one in shown for method in methods]
    return _card(card, picks, views, _first(table, "method"))


def _first(table: Table, role: str) -> int:
    """The position of the first method with this role; 0 if no method has it."""
    return next((i for i, row in enumerate(table.rows) if row.role == role), 0)


def _transfer(transfer: EmotionTransfer, method: MethodId) -> HeatView | None:
    """The heat map of one method; None if the method has no value."""
    found = next((means for name, means, _ in transfer.rows if name == method), None)
    if found is None:
        return None
    losses = transfer.column.loss(found)
    heat = _heat([float(loss) for loss in losses[np.isfinite(losses)]])

    def view(mean: float, loss: float, pairs: int) -> HeatCellView:
        if np.isnan(mean):
            return HeatCellView("–" if pairs else "", "0")
        return HeatCellView(formatting.number(mean, transfer.column), heat(loss))

    rows = [
        HeatRowView(name, [view(*cell) for cell in zip(*line, strict=True)])
        for name, *line in zip(transfer.references, found.tolist(), losses.tolist(), transfer.pairs, strict=True)
    ]
    return HeatView([(name, "") for name in transfer.targets], rows)


def _confusions(table: Table) -> HeatCardView | None:
    found = {(one.column, one.method): one for some in table.confusions for one in some}
    if not found:
        return None
    columns: list[Column] = list(dict.fromkeys(column for column, _ in found))
    methods = [(row.method, row.revision) for row in table.rows]
    picks = [
        ("Classifier", [formatting.column_title(column) for column in columns]),
        ("Method", [row.title for row in table.rows]),
    ]
    views = [_confusion(one) if (one := found.get((c, m))) else None for c in columns for m in methods]
    caption = "Share of the clips of each emotion asked for, over the common pairs. Framed: the correct prediction."
    card = _Card("confusion", "Predictions of the classifier", "asked for", caption)
    return _card(card, picks, views, _first(table, "ceiling"))


def _confusion(one: Confusion) -> HeatView:
    rows = []
    for target, counts in zip(one.targets, one.clips, strict=True):
        total = float(counts.sum())
        shares = [float(count) / total if total else 0.0 for count in counts]
        cells = [
            HeatCellView(percent(share), f"{99 * share:.0f}", correct=name == target)
            for name, share in zip(one.predictions, shares, strict=True)
        ]
        rows.append(HeatRowView(target, [HeatCellView(f"{total:g}", "0"), *cells]))
    return HeatView([("clips", ""), *((prediction, "") for prediction in one.predictions)], rows)


def _card(
    card: _Card, picks: list[tuple[str, list[str]]], views: Sequence[HeatView | None], chosen: int
) -> HeatCardView:
    if views[chosen] is None:
        chosen = next(i for i, view in enumerate(views) if view is not None)
    opened = views[chosen]
    assert opened is not None  # the callers give at least one heat map
    places = [chosen // len(picks[-1][1]), chosen % len(picks[-1][1])][-len(picks) :]
    large = sum(len(row.cells) for row in opened.rows) > _WRITTEN
    return HeatCardView(
        id=card.id,
        title=card.title,
        corner=card.corner,
        caption=card.caption,
        picks=[(label, options, place) for (label, options), place in zip(picks, places, strict=True)],
        opened=replace(opened, rows=[]) if large else opened,
        data=_data(views, opened.groups) if len(views) > 1 or large else "",
    )


def _data(views: Sequence[HeatView | None], groups: list[tuple[str, str]]) -> str:
    """JSON of all heat maps. A heat map without groups of its own has the groups `first`.

    A row is the number of its title, its texts and its tints. Texts and tints are separated by spaces; an empty text is
    `_`. A text can be followed by `~` and the coverage, and `=` marks the correct prediction.
    """
    titles = list(dict.fromkeys((row.title, row.ceiling) for view in views if view for row in view.rows))
    number = {title: i for i, title in enumerate(titles)}

    def text(cell: HeatCellView) -> str:
        return (cell.text or "_") + (f"~{cell.coverage}" if cell.coverage else "") + ("=" if cell.correct else "")

    def rows(view: HeatView) -> list[object]:
        return [
            [number[row.title, row.ceiling], " ".join(map(text, row.cells)), " ".join(cell.heat for cell in row.cells)]
            for row in view.rows
        ]

    document = {
        "first": groups,
        "groups": {i: view.groups for i, view in enumerate(views) if view is not None and view.groups != groups},
        "titles": [[title, int(ceiling)] for title, ceiling in titles],
        "rows": [view and rows(view) for view in views],
    }
    return script_json(document)
