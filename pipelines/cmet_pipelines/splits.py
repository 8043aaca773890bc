"""Assigns clips to train, val and test by their speaker or sentence, from the named splits in splits.toml."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Required, TypedDict, cast

from talking_face.clip import Clip
from talking_face.reasons import UserError

AUTO, NONE = "auto", "none"

_NUMBERED_ACTOR = re.compile(r"([MW]\d{3})-\d")


class Preset(TypedDict, total=False):
    """One preset of splits.toml. The comment at the top of that file explains the keys."""

    datasets: Required[list[str]]
    source: Required[str]
    pattern: str
    by: str
    train: list[str]
    val: list[str]
    test: list[str]
    rest: str


@cache
def presets() -> dict[str, Preset]:
    """Every preset by name, in the order of the file."""
    text = resources.files(__package__).joinpath("splits.toml").read_text("utf-8")
    return cast(dict[str, Preset], tomllib.loads(text))


def split_names(preset: str) -> list[str]:
    """The splits that a preset assigns: `train`, `val`, `test`, as far as it has them."""
    return [name for name in ("train", "val", "test") if name in presets()[preset]]


def resolve(split: str, dataset: str, clips: Sequence[Clip]) -> str:
    """The name of the preset for these clips. `auto` gives the first preset that matches all speakers, or `none`.

    Raises UserError for a name that is not a preset of the dataset.
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
        raise UserError(f"unknown split {split!r} for {dataset}; there are: {', '.join([AUTO, NONE, *ours])}")
    return split


def assign(preset: str, clips: Sequence[Clip]) -> list[Clip]:
    """The clips with `split` set from the preset. A split that the dataset itself gives is kept."""
    if preset == NONE:
        return list(clips)
    table = presets()[preset]
    exact = {name: split for split in ("train", "val", "test") for name in table.get(split, ())}  # type: ignore[attr-defined]
    # M026-2 and M026 are the same person, so both names get the same split. The preset possibly contains one of these
    # names and the dataset the other name.
    person = {base_actor(name): split for name, split in exact.items()}

    def split_of(clip: Clip) -> str | None:
        name = (clip.sentence_id if table.get("by") == "sentence" else clip.speaker) or ""
        return clip.split or exact.get(name) or person.get(base_actor(name)) or table.get("rest")

    return [dataclasses.replace(clip, split=split_of(clip)) for clip in clips]


def base_actor(speaker: str) -> str:
    """The name of a MEAD actor without the number of the recording: M026 for M026-2. Other names are not changed."""
    found = _NUMBERED_ACTOR.fullmatch(speaker)
    return found[1] if found else speaker
