"""Named splits: which speaker trains and which is tested, from the data table splits.toml."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from talking_face.clip import Clip
from talking_face.reasons import UserError

AUTO, NONE = "auto", "none"


@cache
def presets() -> dict[str, dict[str, Any]]:
    """Every preset by name, in the file's order."""
    return tomllib.loads(resources.files(__package__).joinpath("splits.toml").read_text("utf-8"))


def resolve(split: str, dataset: str, clips: Sequence[Clip]) -> str:
    """The preset that `split` means for these clips: `auto` becomes a preset's name or `none`.

    Raises UserError on a name that is no preset of the dataset.
    """
    ours = {name: preset for name, preset in presets().items() if dataset in preset["datasets"]}
    if split == AUTO:
        speakers = {clip.speaker for clip in clips}
        for name, preset in ours.items():
            pattern = preset.get("pattern")
            if pattern and speakers and all(re.fullmatch(pattern, speaker) for speaker in speakers):
                return name
        return NONE
    if split != NONE and split not in ours:
        raise UserError(f"no split {split!r} for {dataset}; there are: {', '.join([AUTO, NONE, *ours])}")
    return split


def assign(preset: str, clips: Sequence[Clip]) -> list[Clip]:
    """The clips with `split` filled from the preset, and `sentence_id` where the preset says what numbers mean.

    What came with the labels stays.
    """
    if preset == NONE:
        return list(clips)
    table = presets()[preset]
    by_speaker: dict[str, str] = {}
    for split in ("train", "val", "test"):
        for speaker in table.get(split, ()):
            by_speaker[speaker] = split
            by_speaker.setdefault(speaker.partition("-")[0], split)  # M026-2 in the list, M026 on the disk
    rest, sentences = table.get("rest"), table.get("sentences")

    def fill(clip: Clip) -> Clip:
        sentence = clip.sentence_id
        if sentence is None and sentences and clip.take.isdecimal():
            sentence = f"s{1 + (int(clip.take) - 1) % sentences:02d}"
        return dataclasses.replace(clip, split=clip.split or by_speaker.get(clip.speaker, rest), sentence_id=sentence)

    return [fill(clip) for clip in clips]
