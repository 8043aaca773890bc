"""Writes the values of every pair of a table as a script file, which the page loads when a reader opens a pop-up.

A page that is opened from a disk cannot read a JSON file, but it can load a script. The script calls the function
`cmetPairs` of the page with the id of the table and the values.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from cmet_leaderboards import formatting
from cmet_leaderboards.digits import fixed
from cmet_leaderboards.escaping import script_json
from cmet_leaderboards.grid import ABSENT, FAILED, INFINITE, Grid
from cmet_leaderboards.score_table import grid_order, page_id
from cmet_leaderboards.section_views import video_path
from cmet_leaderboards.tables import Table
from cmet_leaderboards.views import Gallery
from talking_face.names import file_name_of

# (setting, folder name of the method, pair id) -> address of the scored video, relative to the page.
PairVideos = Mapping[tuple[str, str, str], str]
_OLD = re.compile(r"pairs-.*-[0-9a-f]{8}\.js")


def pairs_file_name(table: Table) -> str:
    """The name of the file with the values of the table's pairs."""
    return f"pairs-{page_id(table)}.js"


def pairs_files(tables: Sequence[Table], gallery: Gallery, videos: PairVideos) -> dict[str, bytes]:
    """{name: content} of the files of several tables. A video of the gallery is played rather than the scored file.

    Args:
        tables: the tables of a page.
        gallery: the videos of the page's gallery, which every browser can play.
        videos: the addresses of scored videos.
    """
    shown = {
        (setting, video["method"], case["pair"]): video_path(video["data"])
        for setting, cases in gallery.items()
        for case in cases
        for video in case["videos"]
    }
    return {pairs_file_name(table): pairs_file(table, {**videos, **shown}) for table in tables}


def remove_old(folder: Path, names: Collection[str]) -> None:
    """Remove the files of an older board, whose names are not among `names`."""
    for old in folder.glob("pairs-*.js"):
        if _OLD.fullmatch(old.name) and old.name not in names:
            old.unlink()


def pairs_file(table: Table, videos: PairVideos) -> bytes:
    """The file's content.

    `pairs`: id, speaker, reference emotion and target emotion. `values`: by row of the page, column and pair; a number,
    a reason, ∞, or null for a pair without a row. `videos`: by row of the page and pair, an address or null.
    """
    grid, order, setting = table.grid, grid_order(table), table.key["setting"]
    labels = (grid.speaker.tolist(), grid.reference.tolist(), grid.target.tolist())
    folders = [file_name_of(grid.methods[m][0]) for m in order]
    data = {
        "pairs": [list(pair) for pair in zip(grid.pair_ids, *labels, strict=True)],
        "values": [[_values(grid, m, c) for c in range(len(grid.columns))] for m in order],
        "videos": [[videos.get((setting, name, pair)) for pair in grid.pair_ids] for name in folders] if videos else [],
    }
    return f"cmetPairs({script_json(page_id(table))},{script_json(data)});\n".encode()


def _values(grid: Grid, m: int, c: int) -> list[float | str | None] | None:
    state, row = grid.state[m, c], grid.row[m, c]
    if (state == ABSENT).all():
        return None
    values: list[float | str | None] = [*rounded_values(grid.value[m, c], formatting.decimals(grid.columns[c]))]
    failed = np.flatnonzero(state == FAILED)
    for at, reason in zip(failed.tolist(), grid.texts("reason")[row[failed]], strict=True):
        values[at] = str(reason)
    for at in np.flatnonzero(state == INFINITE).tolist():
        values[at] = "∞"
    for at in np.flatnonzero(state == ABSENT).tolist():
        values[at] = None
    return values


def rounded_values(values: np.ndarray, digits: int) -> list[float]:
    """The numbers that `digits.fixed` writes; NaN stays NaN."""
    scaled = values * 10.0**digits
    whole = np.rint(scaled)
    found = (whole / 10.0**digits).tolist()
    # Six significant digits can move a value by 0.05 of its last decimal, so only values near the middle between two
    # numbers, and values with more than five digits, need the slow exact way.
    near = (np.abs(scaled - whole) > 0.44) | (np.abs(scaled) >= 1e5)
    for at in np.flatnonzero(near).tolist():
        found[at] = float(fixed(float(values[at]), digits))
    return found
