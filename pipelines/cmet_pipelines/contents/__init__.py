"""Finds out which clips of a dataset's release are missing from a user's folder.

This folder has one CSV file per dataset, with the number of clips in the release. The label columns of the file are
some of `speaker`, `emotion`, `intensity`, `view` and `split`. The column `clips` is the number of clips that have the
labels of the row. The page on datasets in docs/ names the sources of these numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources

import pandas as pd

from cmet_pipelines.splits import base_actor

LABELS = ("speaker", "emotion", "intensity", "view", "split")


def expected(dataset: str) -> pd.DataFrame | None:
    """The dataset's table, with labels as text. None if the dataset has no table."""
    path = resources.files(__package__).joinpath(f"{dataset}.csv")
    if not path.is_file():
        return None
    with path.open("r", encoding="utf-8") as file:
        return pd.read_csv(file, dtype=dict.fromkeys(LABELS, str), keep_default_na=False)


def missing(dataset: str, clips: Iterable[Mapping[str, object]]) -> pd.DataFrame | None:
    """The groups of clips with equal labels that have fewer clips than in the release.

    The columns are the table's labels, `clips` (number of clips in the release) and `found` (number of found clips).

    Args:
        dataset: a reader's name.
        clips: the labels of every clip that was found, including dropped and excluded ones.

    Returns:
        An empty table if no clip is missing. None if the dataset has no table. The result is also None if no clip of
        the release was found: the folder then holds another corpus, such as the embedded corpus.
    """
    table = expected(dataset)
    if table is None:
        return None
    labels = [name for name in LABELS if name in table]
    there = pd.DataFrame([{name: _text(clip.get(name)) for name in labels} for clip in clips], columns=labels)
    if "speaker" in labels:
        there["speaker"] = there["speaker"].map(base_actor)
    counts = there.value_counts(labels).rename("found").reset_index()
    merged = table.merge(counts, on=labels, how="left").fillna({"found": 0}).astype({"found": int})
    if not merged["found"].any():
        return None
    return merged[merged["found"] < merged["clips"]].reset_index(drop=True)


def _text(value: object) -> str:
    return "" if value is None or value != value else str(int(value)) if isinstance(value, float) else str(value)
