"""What each dataset should hold: one CSV a dataset, against which `cmet-eval inspect` says what is missing.

Columns: any of `speaker`, `emotion`, `intensity`, `view`, `split`, and `clips`, the number of clips with these labels
that the release holds. Where the numbers come from stands in docs/datasets.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources

import pandas as pd

from cmet_pipelines.splits import base_actor

LABELS = ("speaker", "emotion", "intensity", "view", "split")


def expected(dataset: str) -> pd.DataFrame | None:
    """The dataset's table, labels as text; None where there is none."""
    path = resources.files(__package__).joinpath(f"{dataset}.csv")
    if not path.is_file():
        return None
    with path.open("r", encoding="utf-8") as file:
        return pd.read_csv(file, dtype=dict.fromkeys(LABELS, str), keep_default_na=False)


def missing(dataset: str, clips: Iterable[Mapping[str, object]]) -> pd.DataFrame | None:
    """Groups of which fewer clips are there than should be: the table's labels, `clips`, `found`.

    Args:
        clips: the labels of every clip that was found, dropped and left-out ones too.

    Returns:
        An empty table where nothing is missing. None where the dataset has no table, and where nothing of the release
        is there: that is another corpus in the same folders, such as the embedded one.
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
