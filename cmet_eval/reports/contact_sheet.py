"""Creates a contact sheet of the clips on which two methods differ most.

The contact sheet shows frames of the ground truth and of both methods.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from cmet_leaderboards.compare import Comparison
from cmet_leaderboards.formatting import column_title, number
from cmet_pipelines.shards import ShardSet
from talking_face.files import sha256_of, unchanged
from talking_face.media.reading import read_frames
from talking_face.reasons import ClipError, Reason, UserError

_THUMB, _LINE, _MARGIN, _NAME = 128, 18, 10, 96  # px
_FRAMES = 6
_INK, _PAPER, _SOFT = (28, 29, 32), (255, 254, 251), (98, 100, 106)
Frames = Callable[[str], "np.ndarray | str"]  # pair id -> (T, H, W, 3) uint8 RGB, or the reason why there are no frames


def pick_pairs(comparison: Comparison, count: int) -> dict[str, list[str]]:
    """Chooses at most `count` pairs, with captions.

    The metrics take turns. In its turn, a metric adds the next pair of its list `extremes`.
    """
    a, b = comparison.names
    captions: dict[str, list[str]] = {}
    depth = max((len(metric.extremes) for metric in comparison.metrics), default=0)
    for place in range(depth):
        for metric in comparison.metrics:
            for x in metric.extremes[place : place + 1]:
                if x.pair_id in captions or len(captions) < count:
                    values = f"{a} {number(x.a, metric.column)}, {b} {number(x.b, metric.column)}"
                    captions.setdefault(x.pair_id, []).append(f"{column_title(metric.column)}: {values}")
    return captions


def contact_sheet(captions_of: Mapping[str, Sequence[str]], sources: Mapping[str, Frames]) -> np.ndarray:
    """The contact sheet, (H, W, 3) uint8 RGB. A pair has its captions, then one line of frames for each source."""
    return np.vstack([_block(pair, captions, sources) for pair, captions in captions_of.items()])


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


def _block(pair: str, captions: Sequence[str], sources: Mapping[str, Frames]) -> np.ndarray:
    width = _NAME + _FRAMES * _THUMB + 2 * _MARGIN
    head = np.full((_MARGIN + _LINE * (1 + len(captions)) + 6, width, 3), _PAPER, np.uint8)
    for i, text in enumerate((pair, *captions)):
        _write(head, text, _MARGIN, _MARGIN + _LINE * (i + 1) - 6, 0.45 if i == 0 else 0.4, _SOFT if i else _INK)
    rows = [_row(name, frames(pair), width) for name, frames in sources.items()]
    return np.vstack([head, *rows])


def _row(name: str, frames: np.ndarray | str, width: int) -> np.ndarray:
    row = np.full((_THUMB, width, 3), _PAPER, np.uint8)
    for i, part in enumerate(textwrap.wrap(name, 12)):
        _write(row, part, _MARGIN, _LINE * (i + 1), 0.4, _INK)
    if isinstance(frames, str):
        _write(row, frames, _NAME + _MARGIN, _THUMB // 2, 0.45, _SOFT)
        return row
    for i, index in enumerate(np.linspace(0, len(frames) - 1, _FRAMES).round().astype(int)):
        left = _NAME + _MARGIN + i * _THUMB
        row[:, left : left + _THUMB] = _square(frames[index])
    return row


def _square(image: np.ndarray) -> np.ndarray:
    """The whole picture, scaled to fit into a square. The rest of the square has the background colour."""
    factor = _THUMB / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    out = np.full((_THUMB, _THUMB, 3), _PAPER, np.uint8)
    top, left = (_THUMB - size[1]) // 2, (_THUMB - size[0]) // 2
    out[top : top + size[1], left : left + size[0]] = small
    return out


def _write(image: np.ndarray, text: str, x: int, y: int, size: float, colour: tuple[int, int, int]) -> None:
    plain = text.replace("±", "+-").encode("ascii", "replace").decode()  # OpenCV's font has only ASCII characters
    cv2.putText(image, plain, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)
