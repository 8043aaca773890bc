"""Creates the files of `cmet-eval compare`: a text, a table and a contact sheet of the methods' videos."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import cv2
import numpy as np

from cmet_eval.reports.contact_sheet import (
    Source,
    contact_sheet,
    pick_pairs,
    truth_frames,
    values_of,
    video_frames,
)
from cmet_eval.reports.method_videos import MethodVideos
from cmet_leaderboards.compare import Comparison
from cmet_leaderboards.escaping import csv_cell
from talking_face.files import write_bytes
from talking_face.names import file_name_of, inside

_TRUTH = "ground-truth"  # the method whose videos show the ground truth


def sheet(comparison: Comparison, videos: MethodVideos, data: Path, clips: int) -> np.ndarray | None:
    """The contact sheet, (H, W, 3) uint8 RGB; None if there are no videos or no pairs.

    The ground truth is read from the shards in `data`. If the folder `data` is absent, the videos of the method
    `ground-truth` are used.
    """
    grid = comparison.grid
    setting, table = grid.key["setting"], grid.table
    chosen = pick_pairs(comparison, clips)
    found: dict[str, dict[str, Path]] = {}
    shas: dict[str, dict[str, str | None]] = {_TRUTH: {}}
    for m, (name, _) in enumerate(grid.methods):
        rows = zip(grid.pair_ids, grid.row[m].max(axis=0), strict=True)
        shas[name] = {pair: table["video_sha256"][int(row)].as_py() if row >= 0 else None for pair, row in rows}
    for name, known in shas.items():
        places = {pair: videos.find(name, setting, pair, {sha} if (sha := known.get(pair)) else ()) for pair in chosen}
        found[name] = {pair: place for pair, place in places.items() if place is not None}
    sources: list[Source] = []
    if data.is_dir():
        clip_of = dict(zip(grid.pair_ids, grid.truth, strict=True))
        sources.append(Source("Ground truth", truth_frames(data, clip_of, grid.key["data_digest"]), {}))
    elif found[_TRUTH]:
        sources.append(Source("Ground truth", video_frames(found[_TRUTH], {}), {}))
    names = [name for name, _ in grid.methods]
    for side, (name, title) in enumerate(zip(names, comparison.titles, strict=True)):
        sources.append(Source(title, video_frames(found[name], shas[name]), values_of(chosen, side)))
    return contact_sheet(list(chosen), sources) if chosen and any(found[name] for name in names) else None


def write(comparison: Comparison, text: str, picture: np.ndarray | None, out: Path) -> list[Path]:
    """Writes SETTING.md, SETTING.csv and SETTING.png into `out`; returns the paths."""
    setting = comparison.grid.key["setting"]
    buffer = io.StringIO()
    fields = ("metric", "signature", "a", "b", "difference_of_losses", "low", "high", "p", "p_holm", "n", "verdict")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(fields)
    for metric in comparison.metrics:
        paired = metric.paired
        row = [metric.column.metric, metric.column.signature, metric.a, metric.b]
        if paired is not None:
            ends = (paired.interval.low, paired.interval.high) if paired.interval else (None, None)
            row += [paired.difference, *ends, paired.p, paired.p_holm, paired.n, paired.verdict]
        writer.writerow(map(csv_cell, row))
    paths = {suffix: inside(out, f"{file_name_of(setting)}{suffix}") for suffix in (".md", ".csv", ".png")}
    files = {paths[".md"]: text.encode(), paths[".csv"]: buffer.getvalue().encode()}
    if picture is not None:
        png = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()
        files[paths[".png"]] = png
    for path, content in files.items():
        write_bytes(path, content)
    return list(files)
