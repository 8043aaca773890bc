"""Edits of a bundle's folder as a forger makes them: with right hashes and a right digest, where one can be written."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cmet_eval.bundles.sample import sample_of
from cmet_eval.protocol.pair_files import read_pairs
from cmet_eval.protocol.pairs import pair_file_name
from talking_face.files import sha256_of
from talking_face.sealed import write_sealed_json

Edit = Callable[[Path], None]
Run = Callable[..., tuple[int, str, str]]


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "bundle.json").read_text())
    return found


def sealed(folder: Path, change: Callable[[dict[str, Any]], None] = lambda value: None) -> None:
    """Writes the manifest with right hashes and a right digest, as a forger would."""
    value = manifest(folder)
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "bundle.json")
    value["files"] = {path.relative_to(folder).as_posix(): sha256_of(path) for path in sorted(paths)}
    change(value)
    write_sealed_json(folder / "bundle.json", value, indent=1)


def field(change: Callable[[dict[str, Any]], None]) -> Edit:
    return lambda folder: sealed(folder, change)


def cells(name: str, change: Callable[[list[dict[str, str]]], None]) -> Edit:
    """An edit of the rows of a CSV file of the first table."""

    def edit(folder: Path) -> None:
        path = folder / "tables" / "01" / name
        rows = list(csv.DictReader(io.StringIO(path.read_text())))
        change(rows)
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        path.write_text(buffer.getvalue())
        sealed(folder)

    return edit


def sampled(folder: Path) -> tuple[str, Path]:
    """The pair of the sample, and its video."""
    videos = csv.DictReader(io.StringIO((folder / "tables/01/videos.csv").read_text()))
    pairs = read_pairs(folder / "tables/01/pairs.csv")
    (pair,) = sample_of(pairs, [row["pair"] for row in videos])
    return pair, folder / "tables/01/sample" / f"{pair_file_name(pair)}.mp4"


def swap_video(folder: Path) -> None:
    _, video = sampled(folder)
    video.write_bytes(video.read_bytes() + b"\0")
    sealed(folder)


def write(name: str, data: bytes = b"") -> Edit:
    def edit(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return edit


def set_table(name: str, text: str) -> Edit:
    return field(lambda value: value["tables"][0]["key"].update({name: text}))


def set_metric(**facts: object) -> Edit:
    return field(lambda value: value["tables"][0]["metrics"][0].update(facts))


def set_method(**facts: object) -> Edit:
    return field(lambda value: value["method"].update(facts))
