"""Collects face windows, thumbnails and measurements of a clip, so that the clip is decoded only once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from cmet_pipelines import quality
from talking_face.faces.align import AlignMode, cut, region_of
from talking_face.faces.track import Window
from talking_face.media import Picture

# The windows around the face are kept in memory from tracking to cropping. If the windows of a clip need more bytes
# than this limit, the windows are deleted and the clip is decoded a second time, which takes 6 ms per frame. So a long
# clip does not fill the memory. A window of a 1080p 4:4:4 frame takes 2 MB, so the windows of 8 s of MEAD fit.
_KEEP_BYTES = 384 << 20
_FIGURES_EVERY = 5  # measure every fifth frame: sharpness and brightness hardly change within 0.2 s


class FaceWindows:
    """Keeps the window around the face of every picture, in the picture's pixel format, until the crop is known.

    The whole clip has one crop box, so the box is known only after the last frame is tracked. Whole frames would need
    too much memory, so only the windows are kept.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[Picture, tuple[int, int]]] | None = []  # picture, and (left, top) px, of a window
        self._bytes = 0
        self._last: tuple[Picture | None, Window | None] = (None, None)

    def add(self, picture: Picture, window: Window | None) -> None:
        """Keeps the window of one picture. `track_face` calls this method for every picture."""
        if self._parts is None:
            return
        if self._parts and self._last == (picture, window):  # a repeated frame: use the copy of the last window again
            self._parts.append(self._parts[-1])
            return
        self._last = (picture, window)
        inside = picture.snap(*window) if window else (0, 0, 0, 0)
        if inside[2] - inside[0] < 2 or inside[3] - inside[1] < 2:
            self._parts = None  # no single face is tracked yet, so the part that the crop needs is unknown
            return
        part = picture.copy(*inside)
        self._parts.append((part, inside[:2]))
        self._bytes += part.nbytes
        if self._bytes > _KEEP_BYTES:
            self._parts = None

    def crops(
        self, mode: AlignMode, transforms: np.ndarray, picture: tuple[int, int], size: int
    ) -> Iterator[np.ndarray] | None:
        """The crops, each (size, size, 3) uint8 RGB. None if the windows were deleted, or if a crop exceeds its window.

        Args:
            mode: the align mode; it defines how faces are cropped.
            transforms: (T, 2, 3) float64, from source px to crop px.
            picture: height and width of the source frames, px.
            size: side of the crop, px.
        """
        if self._parts is None:
            return None
        for (part, (x, y)), transform in zip(self._parts, transforms, strict=True):
            left, top, right, bottom = region_of(mode, transform, size, picture)
            if x > left or y > top or x + part.width < right or y + part.height < bottom:
                return None
        return (
            cut(mode, part, transform, size, offset)
            for (part, offset), transform in zip(self._parts, transforms, strict=True)
        )


class Thumbnails:
    """Keeps a small grey copy of every picture of a stream, 2 kB per picture."""

    def __init__(self) -> None:
        self._small: list[np.ndarray] = []

    def collect(self, pictures: Iterator[Picture]) -> Iterator[Picture]:
        """Yields the pictures unchanged, and keeps a thumbnail of each picture."""
        last: Picture | None = None
        for picture in pictures:
            self._small.append(self._small[-1] if picture is last else picture.thumbnail(*quality.THUMBNAIL))
            last = picture
            yield picture

    def stack(self) -> np.ndarray:
        """All thumbnails: (T, h, w) uint8 grey."""
        return np.stack(self._small)


class CropFigures:
    """Measures sharpness and brightness of a stream of crops, and keeps the crops whose indices are in `wanted`."""

    def __init__(self, wanted: Sequence[int]) -> None:
        self.crops: dict[int, np.ndarray] = dict.fromkeys(wanted, np.zeros(0, np.uint8))
        self._figures: list[tuple[float, float]] = []

    def collect(self, crops: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the crops unchanged and measures every fifth crop."""
        for index, crop in enumerate(crops):
            if index % _FIGURES_EVERY == 0:
                self._figures.append(quality.sharpness_and_brightness(crop))
            if index in self.crops:
                self.crops[index] = crop
            yield crop

    def medians(self) -> tuple[float, float]:
        """(median sharpness, median brightness) of the measured crops."""
        sharpness, brightness = np.median(self._figures, axis=0)
        return float(sharpness), float(brightness)
