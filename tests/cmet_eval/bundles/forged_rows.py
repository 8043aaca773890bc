"""Forged bundles: the videos of the sample, the pairs, the settings, the metrics and the values."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cmet_eval.bundles.form import Fault
from cmet_eval.protocol.pair_files import read_pairs, write_pairs
from talking_face.clip import Pair
from tests.cmet_eval.bundles.forging import Edit, cells, sampled, sealed, set_metric, set_table, swap_video, write


def value_of_row(text: str, row: int = -1, reason: str = "") -> Edit:
    return cells("values.csv", lambda rows: rows[row].update(value=text, reason=reason))


def edit_value_of_the_sample(folder: Path) -> None:
    pair, _ = sampled(folder)

    def change(rows: list[dict[str, str]]) -> None:
        row = next(row for row in rows if row["pair"] == pair and row["value"])
        row["value"] = repr(float(row["value"]) + 1e-3)

    cells("values.csv", change)(folder)


def swap_video_unsealed(folder: Path) -> None:
    _, video = sampled(folder)
    video.write_bytes(video.read_bytes() + b"\0")


def remove_video(folder: Path) -> None:
    sampled(folder)[1].unlink()
    sealed(folder)


def add_video(folder: Path) -> None:
    video = sampled(folder)[1]
    shutil.copy(video, video.with_name("another.mp4"))
    sealed(folder)


def another_sample(folder: Path) -> None:
    video = sampled(folder)[1]
    video.rename(video.with_name("another.mp4"))
    sealed(folder)


def with_pairs(change: Callable[[Any], Any], **key: str) -> Edit:
    """Replaces the pair list, and the fields of the table's key that follow from it."""

    def edit(folder: Path) -> None:
        path = folder / "tables/01/pairs.csv"
        changed = change(read_pairs(path))
        write_pairs(changed, path)
        keys = {"pairs_digest": changed.digest, **key}
        sealed(folder, lambda value: value["tables"][0]["key"].update(keys))

    return edit


def chosen_pairs(folder: Path) -> None:
    """Leaves out the pairs with the lowest values, as someone would who chooses the pairs after the scores."""
    kept: list[Pair] = []

    def some(pairs: Any) -> Any:
        kept.extend(pairs.pairs[2:])
        return replace(pairs, pairs=tuple(kept))

    with_pairs(some)(folder)
    ids = {pair.pair_id for pair in kept}
    for name in ("values.csv", "videos.csv"):
        cells(name, lambda rows: rows.__setitem__(slice(None), [row for row in rows if row["pair"] in ids]))(folder)
    shutil.rmtree(folder / "tables/01/sample")
    _, video = sampled(folder)
    video.parent.mkdir()
    done = next(path for path in (folder.parent, *folder.parents) if (path / "run").is_symlink()) / "run"
    shutil.copy(done / "videos/mine/neutral-base" / video.name, video)
    sealed(folder)


def second_table(folder: Path) -> None:
    shutil.copytree(folder / "tables/01", folder / "tables/02")
    sealed(folder, lambda value: value["tables"].append(value["tables"][0]))


def second_metric(folder: Path) -> None:
    sealed(folder, lambda value: value["tables"][0]["metrics"].append(value["tables"][0]["metrics"][0]))


ROWS: list[tuple[str, Fault, Edit]] = [
    ("a video after the bundle was written", Fault.SWAPPED_VIDEO, swap_video_unsealed),
    ("a video that was not scored", Fault.SWAPPED_VIDEO, swap_video),
    ("no video of the sample", Fault.ABSENT_VIDEO, remove_video),
    ("a listed video that is not there", Fault.ABSENT_VIDEO, lambda folder: sampled(folder)[1].unlink()),
    ("a video more", Fault.EXTRA_VIDEO, add_video),
    ("an unlisted video more", Fault.EXTRA_VIDEO, write("tables/01/sample/another.mp4")),
    ("the video of another pair", Fault.OTHER_SAMPLE, another_sample),
    ("an unknown setting", Fault.FOREIGN_SETTING, set_table("setting", "easy")),
    ("other rules", Fault.FOREIGN_SETTING, set_table("rules", "00000000")),
    ("the rows of another list", Fault.FOREIGN_PAIRS, set_table("pairs_digest", "0" * 16)),
    ("a list that is none", Fault.FOREIGN_PAIRS, lambda f: [write("tables/01/pairs.csv", b"x")(f), sealed(f)][0]),
    ("pairs that were chosen", Fault.FOREIGN_PAIRS, chosen_pairs),
    ("pairs of the training split", Fault.TRAINING_CLIPS, with_pairs(lambda pairs: replace(pairs, split="train"))),
    ("pairs of all splits", Fault.TRAINING_CLIPS, with_pairs(lambda pairs: replace(pairs, split="all"))),
    ("rows of other data than the pairs", Fault.OTHER_DATA, set_table("data_digest", "e" * 32)),
    ("other data", Fault.OTHER_DATA, with_pairs(lambda p: replace(p, data_digest="e" * 32), data_digest="e" * 32)),
    ("drawn data as recorded", Fault.OTHER_DATA, set_table("origin", "recorded")),
    ("an origin that there is not", Fault.BAD_FIELD, set_table("origin", "real")),
    ("another name of the data", Fault.OTHER_DATA, set_table("dataset", "mead")),
    ("the same table twice", Fault.DUPLICATE_TABLE, second_table),
    ("the same row twice", Fault.DUPLICATE_PAIR, cells("values.csv", lambda rows: rows.append(rows[0]))),
    ("the same video twice", Fault.DUPLICATE_PAIR, cells("videos.csv", lambda rows: rows.append(rows[0]))),
    ("a row less", Fault.ABSENT_PAIR, cells("values.csv", lambda rows: rows.pop(3) and None)),
    ("a video less", Fault.ABSENT_PAIR, cells("videos.csv", lambda rows: rows.pop(3) and None)),
    ("a pair of no list", Fault.UNKNOWN_PAIR, cells("values.csv", lambda rows: rows[0].update(pair="x/y"))),
    ("a metric of no number", Fault.UNKNOWN_METRIC, cells("values.csv", lambda rows: rows[0].update(metric="99"))),
    ("a metric that there is not", Fault.UNKNOWN_METRIC, set_metric(metric="psnr:best")),
    ("code as metric", Fault.UNKNOWN_METRIC, set_metric(metric="os:System")),
    ("the same metric twice", Fault.DUPLICATE_METRIC, second_metric),
    ("another direction", Fault.EDITED_METRIC, set_metric(higher_is_better=False)),
    ("another ideal value", Fault.EDITED_METRIC, set_metric(ideal=5.0)),
    ("a metric of the other profile", Fault.FOREIGN_METRIC, set_table("profile", "best")),
    ("another signature", Fault.FOREIGN_SIGNATURE, set_metric(signature="psnr|variant:frame-mean|version:1.0.0")),
    ("a video without SHA-256", Fault.NO_HASH, cells("videos.csv", lambda r: r[0].update(sha256="", suffix=""))),
    ("a SHA-256 that is none", Fault.NO_HASH, cells("videos.csv", lambda rows: rows[0].update(sha256="x" * 64))),
    ("not a number", Fault.NOT_FINITE, value_of_row("nan")),
    ("an infinite value", Fault.NOT_FINITE, value_of_row("inf")),
    ("a value that is infinite when it is read", Fault.NOT_FINITE, value_of_row("1e999")),
    ("a similarity of 1.5", Fault.OUT_OF_RANGE, value_of_row("1.5")),
    ("a negative number of decibels", Fault.OUT_OF_RANGE, value_of_row("-3.0", 0)),
    ("a word as value", Fault.BAD_FIELD, value_of_row("best")),
    ("a value and a reason", Fault.VALUE_OR_REASON, value_of_row("0.5", reason="silent")),
    ("neither value nor reason", Fault.VALUE_OR_REASON, value_of_row("")),
    ("an unknown reason", Fault.VALUE_OR_REASON, value_of_row("", reason="bad-luck")),
    ("a value that is left out", Fault.TRAINED_ON, value_of_row("", reason="trained-on")),
    ("a value in other digits", Fault.NOT_CANONICAL, cells("values.csv", lambda r: r[-1].update(n="0" + r[-1]["n"]))),
    ("rows in another order", Fault.NOT_CANONICAL, cells("videos.csv", lambda rows: rows.reverse())),
    ("a score without its model file", Fault.NO_WEIGHTS, value_of_row("", reason="missing-weights")),
    ("an edited value", Fault.EDITED_VALUE, edit_value_of_the_sample),
]  # fmt: skip
