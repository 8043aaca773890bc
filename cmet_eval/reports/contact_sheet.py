"""Creates a contact sheet of the clips on which two methods differ most.

The contact sheet shows frames of the ground truth and of both methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cmet_leaderboards.compare import Comparison, Extreme
from cmet_leaderboards.formatting import number
from cmet_leaderboards.grid import Column
from cmet_pipelines.shards import ShardSet
from talking_face.files import sha256_of, unchanged
from talking_face.media.reading import read_frames
from talking_face.reasons import ClipError, Reason, UserError

# px. The sheet is as wide as a page, so that its texts keep their size there: 20 px for names, 16 px for values.
_THUMB, _MARGIN, _NAME, _GAP = 160, 16, 208, 8
_FRAMES = 6
_WIDTH = 2 * _MARGIN + _NAME + _FRAMES * _THUMB
_BOLD, _PLAIN = ("DejaVuSans-Bold.ttf", 20), ("DejaVuSans.ttf", 16)
_INK, _PAPER, _SOFT, _LINE = (28, 29, 32), (255, 254, 251), (98, 100, 106), (228, 225, 216)
Frames = Callable[[str], "np.ndarray | str"]  # pair id -> (T, H, W, 3) uint8 RGB, or the reason why there are no frames
Chosen = dict[str, list[tuple[Column, Extreme]]]  # pair id -> the metrics that chose the pair, with both values


class Source(NamedTuple):
    """One line of frames of each pair."""

    title: str
    frames: Frames
    values: Mapping[str, Sequence[str]]  # pair id -> texts below the title, such as the scores of this video


def pick_pairs(comparison: Comparison, count: int) -> Chosen:
    """Chooses at most `count` pairs.

    The metrics take turns. In its turn, a metric adds the next pair of its list `extremes`.
    """
    chosen: Chosen = {}
    depth = max((len(metric.extremes) for metric in comparison.metrics), default=0)
    for place in range(depth):
        for metric in comparison.metrics:
            for x in metric.extremes[place : place + 1]:
                if x.pair_id in chosen or len(chosen) < count:
                    chosen.setdefault(x.pair_id, []).append((metric.column, x))
    return chosen


def values_of(chosen: Chosen, side: int) -> dict[str, list[str]]:
    """For each pair, the values of method A (side 0) or B (side 1) by the metrics that chose the pair."""
    columns = {column for found in chosen.values() for column, _ in found}

    def text(column: Column, x: Extreme) -> str:
        several = sum(other.name == column.name for other in columns) > 1
        variant = f" ({column.variant})" if several else ""
        unit = f" {column.unit}" if column.unit else ""
        return f"{column.name}{variant} {number((x.a, x.b)[side], column)}{unit}"

    return {pair: [text(*one) for one in found] for pair, found in chosen.items()}


def contact_sheet(pairs: Sequence[str], sources: Sequence[Source]) -> np.ndarray:
    """The contact sheet, (H, W, 3) uint8 RGB. A pair has its id, then one line of frames for each source.

    The title of a source, and its values of the pair, are left of its frames.
    """
    return np.vstack([_block(pair, sources) for pair in pairs])


def video_frames(videos: Mapping[str, Path], shas: Mapping[str, str | None]) -> Frames:
    """A function that reads the frames of a pair's video. The function returns a text if the file cannot be used.

    Args:
        videos: pair id -> path of its video.
        shas: pair id -> SHA-256 of the video that was scored; None: any content.
    """

    def frames(pair_id: str) -> np.ndarray | str:
        path = videos.get(pair_id)
        if path is None:
            return "no video here"
        try:
            with unchanged(path, shas.get(pair_id) or sha256_of(path)):
                return read_frames(path, 25.0)
        except ClipError as error:
            return "another video than was scored" if error.reason is Reason.CHANGED else error.reason.value

    return frames


def truth_frames(data: Path, clips: Mapping[str, str | None], digest: str) -> Frames:
    """A function that reads the frames of ground truths. Raises UserError if the result rows belong to other data."""
    shards = ShardSet(data)
    if shards.digest != digest:
        raise UserError(f"{data} holds data {shards.digest[:12]}, the rows were made on {digest[:12]}")

    def frames(pair_id: str) -> np.ndarray | str:
        clip = clips.get(pair_id)
        return "no ground truth" if clip is None else shards.frames(clip)

    return frames


def _block(pair: str, sources: Sequence[Source]) -> np.ndarray:
    head = Image.new("RGB", (_WIDTH, 52), _PAPER)
    draw = ImageDraw.Draw(head)
    draw.line((_MARGIN, 8, _WIDTH - _MARGIN, 8), _LINE)
    draw.text((_MARGIN, 30), _cut(pair, _WIDTH - 2 * _MARGIN), _SOFT, _font(*_PLAIN), anchor="lm")
    return np.vstack([np.asarray(head), *(_row(source, pair) for source in sources)])


def _row(source: Source, pair: str) -> np.ndarray:
    row = Image.new("RGB", (_WIDTH, _THUMB + _GAP), _PAPER)
    draw = ImageDraw.Draw(row)
    names = [(text, _BOLD, _INK) for text in _wrapped(source.title, _BOLD)[:3]]
    values = [(text, _PLAIN, _SOFT) for one in source.values.get(pair, ()) for text in _wrapped(one, _PLAIN)]
    lines, most = names + values, _THUMB // 24
    if len(lines) > most:
        lines[most - 1 :] = [(f"and {len(lines) - most + 1} more", _PLAIN, _SOFT)]
    top = _THUMB / 2 - 12 * len(lines) + 12
    for i, (text, font, ink) in enumerate(lines):
        draw.text((_MARGIN, top + 24 * i), text, ink, _font(*font), anchor="lm")
    frames = source.frames(pair)
    if isinstance(frames, str):
        draw.text((_MARGIN + _NAME, _THUMB // 2), frames, _SOFT, _font(*_PLAIN), anchor="lm")
        return np.asarray(row)
    out = np.array(row)
    for i, index in enumerate(np.linspace(0, len(frames) - 1, _FRAMES).round().astype(int)):
        left = _MARGIN + _NAME + i * _THUMB
        out[:_THUMB, left : left + _THUMB] = _square(frames[index])
    return out


def _wrapped(text: str, font: tuple[str, int]) -> list[str]:
    """The text in lines that fit left of the frames. A word that is too long is cut."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _font(*font).getlength(longer) <= _NAME - _GAP:
            lines[-1] = longer
        else:
            lines.append(_cut(word, _NAME - _GAP, font))
    return lines


def _cut(text: str, width: float, font: tuple[str, int] = _PLAIN) -> str:
    """The text, or its start and `…` if it is wider than `width` px."""
    if _font(*font).getlength(text) <= width:
        return text
    while text and _font(*font).getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """A font of Matplotlib's package, so that every machine has it."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def _square(image: np.ndarray) -> np.ndarray:
    """The whole picture, scaled to fit into a square. The rest of the square has the background colour."""
    factor = _THUMB / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    out = np.full((_THUMB, _THUMB, 3), _PAPER, np.uint8)
    top, left = (_THUMB - size[1]) // 2, (_THUMB - size[0]) // 2
    out[top : top + size[1], left : left + size[0]] = small
    return out
