"""Finds videos whose face has another place or size than in the ground truth, over the whole video.

Such videos have another crop than the ground truth. A crop that is 8% larger lowers PSNR by 5 to 10 dB, and no other
metric says why. The check uses medians, so that a head that moves in another way is not refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Literal

from cmet_eval.measuring.score_records import StoredFraming
from cmet_metrics.base import Sample
from cmet_metrics.landmarks import mediapipe_68
from cmet_metrics.registration import framing
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import MissingWeights

# refuse: metrics that compare with the ground truth get no value beyond the bounds. allow: they get one, and a note.
# off: the registration is not measured.
Check = Literal["refuse", "allow", "off"]


@dataclass(frozen=True)
class Bound:
    """The largest allowed difference."""

    shift: float  # distances between the eyes
    scale: float  # ratio of the larger to the smaller head

    def excludes(self, found: StoredFraming) -> bool:
        return shift_of(found) > self.shift or max(found.scale, 1 / found.scale) > self.scale


# The bound of one video, and of the median over the videos of a method in a setting. The median over several videos
# varies less, so that a smaller constant error is found. docs/reference/settings.md has the measurements.
ONE = Bound(0.5, 1.15)
ALL = Bound(0.12, 1.06)
LEAST_VIDEOS = 5  # with fewer videos, only the bound of one video holds


def framing_of(pred: Sample, target: Sample, files: ModelFiles) -> StoredFraming | None:
    """How the face of a video differs from its ground truth, over the whole clip; None if it cannot be measured.

    It cannot be measured if the sizes differ, if no frame has a face in both clips, or without the landmark network.
    """
    if pred.frames.shape[1:3] != target.frames.shape[1:3]:
        return None
    n = min(len(pred.frames), len(target.frames))
    try:
        found = framing(mediapipe_68(pred, files)[:n], mediapipe_68(target, files)[:n])
    except MissingWeights:
        return None
    return None if found is None else StoredFraming(*found)


def shift_of(found: StoredFraming) -> float:
    """The length of the shift, in distances between the eyes."""
    return math.hypot(found.right, found.down)


def as_text(found: StoredFraming) -> str:
    """The difference as text; it starts with `the face is` and ends with `than in the ground truth`."""
    sideways = f"{abs(found.right):.2f} eye distances {'right' if found.right >= 0 else 'left'}"
    upright = f"{abs(found.down):.2f} {'down' if found.down >= 0 else 'up'}"
    size = f"{abs(found.scale - 1):.0%} {'larger' if found.scale >= 1 else 'smaller'}"
    return f"the face is {sideways}, {upright} and {size} than in the ground truth"


@dataclass(frozen=True)
class Registration:
    """The registration of the videos of one method in one setting."""

    method: str
    setting: str
    by_pair: Mapping[str, StoredFraming]
    videos: int  # number of videos, with those whose registration is unknown

    @cached_property
    def of_all(self) -> StoredFraming | None:
        """The median over the videos; None if there are fewer than five."""
        if len(self.by_pair) < LEAST_VIDEOS:
            return None
        every = self.by_pair.values()
        scale = math.exp(median(math.log(one.scale) for one in every))
        return StoredFraming(median(one.right for one in every), median(one.down for one in every), scale)

    def fault(self, pair_id: str) -> str:
        """Why a video is misregistered, and what to do; "" if it is not."""
        one, every = self.by_pair.get(pair_id), self.of_all
        if every is not None and ALL.excludes(every):
            what = f"median of {len(self.by_pair)} videos: {as_text(every)}"
        elif one is not None and ONE.excludes(one):
            what = as_text(one)
        else:
            return ""
        return f"{what}; use its framing, preprocess --align none, or --allow-misregistered"

    def __str__(self) -> str:
        head = f"registration of {self.method} in {self.setting}"
        if not self.by_pair:
            return f"{head}: no face was found in {self.videos} videos"
        shifts = {pair: shift_of(found) for pair, found in self.by_pair.items()}
        scales = {pair: found.scale for pair, found in self.by_pair.items()}
        far, odd = max(shifts, key=shifts.__getitem__), max(scales, key=lambda pair: abs(math.log(scales[pair])))
        wrong = sum(bool(self.fault(pair)) for pair in self.by_pair)
        return (
            f"{head}, {len(self.by_pair)} of {self.videos} videos: shift median {median(shifts.values()):.2f}, worst "
            f"{shifts[far]:.2f} eye distances ({far}); scale median {median(scales.values()):.2f}, worst "
            f"{scales[odd]:.2f} ({odd}); {wrong or 'none'} misregistered"
        )
