"""Creates the files of `cmet-eval compare`: a text, a table and a contact sheet of the methods' videos."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from cmet_eval.reports.contact_sheet import Frames, contact_sheet, pick_pairs, truth_frames, video_frames
from cmet_leaderboards.compare import Comparison
from cmet_leaderboards.escaping import csv_cell
from talking_face.files import write_bytes
from talking_face.names import file_name_of, inside
from talking_face.reasons import UserError


def folders(given: Sequence[str], default: Path, methods: Sequence[str]) -> dict[str, Path]:
    """The folders in the values of `--videos`: method -> its videos; "" -> the folder that contains METHOD/SETTING/."""
    found = {"": default}
    for text in given:
        name, equals, place = text.rpartition("=")
        if not Path(place).is_dir():
            raise UserError(f"--videos {text}: no folder {place}")
        if equals and name not in methods:
            raise UserError(f"--videos {text}: {name} is not compared, {' and '.join(methods)} are")
        found[name if equals else ""] = Path(place)
    return found


def sheet(comparison: Comparison, videos: dict[str, Path], data: Path, clips: int) -> np.ndarray | None:
    """The contact sheet, (H, W, 3) uint8 RGB; None if there are no videos or no pairs.

    The ground truth is read from the shards in `data`. If the folder `data` is absent, the videos of the method
    `ground-truth` are used.
    """
    grid = comparison.grid
    setting, table = grid.key["setting"], grid.table
    sources: dict[str, Frames] = {}
    if data.is_dir():
        clip_of = dict(zip(grid.pair_ids, grid.truth, strict=True))
        sources["ground truth"] = truth_frames(data, clip_of, grid.key["data_digest"])
    elif (truth := videos[""] / "ground-truth" / file_name_of(setting)).is_dir():
        sources["ground truth"] = video_frames(truth, {})
    any_video = False
    for m, (name, _) in enumerate(grid.methods):
        folder = videos.get(name, videos[""] / file_name_of(name) / file_name_of(setting))
        any_video = any_video or folder.is_dir()
        rows = grid.row[m].max(axis=0)
        shas = [table["video_sha256"][int(row)].as_py() if row >= 0 else None for row in rows]
        sources[name] = video_frames(folder, dict(zip(grid.pair_ids, shas, strict=True)))
    captions = pick_pairs(comparison, clips)
    return contact_sheet(captions, sources) if any_video and captions else None


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
