"""Decoded pictures of a video. A caller requests a window of a picture, and only this window is converted to RGB.

The conversion of a whole 1080p frame to RGB takes 9 ms and 6 MB. The conversion of a window around the face takes 2 to
3 ms, because FFmpeg crops and scales the window before the conversion. If a window is not scaled, its pixels are the
same as in the whole picture in RGB.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from fractions import Fraction

import av
import av.filter
import cv2
import numpy as np
from av.video.frame import VideoFrame

from talking_face.media.container import display_size

# FFmpeg's averaging filter differs from OpenCV's INTER_AREA by at most 2 of 255 levels.
_SHRINK, _ENLARGE = "area", "bicubic"
# Without these flags, a scaled picture would have half of its colour resolution.
_CHROMA = "full_chroma_int+full_chroma_inp"
_UNSCALED = "bilinear"  # the flag that PyAV's to_ndarray uses
_SQUARE = Fraction(1)
_KEPT_GRAPHS = 8  # filter graphs kept in memory; a clip uses 3 or 4, and each new window position needs a new graph


class Picture:
    """A picture of `width` x `height` px. A window is a rectangle inside the picture, in whole pixels."""

    width: int
    height: int

    def rgb(self) -> np.ndarray:
        """The whole picture: (H, W, 3) uint8 RGB, C-contiguous."""
        raise NotImplementedError

    def thumbnail(self, width: int, height: int) -> np.ndarray:
        """Luma of the whole picture, (height, width) uint8: nearest pixels, without averaging. Takes 0.05 ms."""
        raise NotImplementedError

    def window(self, left: int, top: int, right: int, bottom: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """A window as (h, w, 3) uint8 RGB, C-contiguous. If `size` (width, height) is given, the window is scaled.

        A smaller size is computed by averaging pixels, a larger size by cubic interpolation. The window must be a
        result of `snap`.
        """
        raise NotImplementedError

    def snap(self, left: int, top: int, right: int, bottom: int) -> tuple[int, int, int, int]:
        """Reduce a window so that the window is inside the picture and its edges do not split a chroma sample."""
        return max(0, left), max(0, top), min(self.width, right), min(self.height, bottom)

    def copy(self, left: int, top: int, right: int, bottom: int) -> Picture:
        """A window as a new picture with its own memory. The window must be a result of `snap`."""
        raise NotImplementedError

    @property
    def nbytes(self) -> int:
        """Size of the picture in memory, bytes."""
        raise NotImplementedError


class ArrayPicture(Picture):
    """A picture that is stored as RGB."""

    def __init__(self, rgb: np.ndarray) -> None:
        """`rgb`: (H, W, 3) uint8."""
        self.height, self.width = rgb.shape[:2]
        self._rgb = rgb

    def rgb(self) -> np.ndarray:
        return np.ascontiguousarray(self._rgb)

    def thumbnail(self, width: int, height: int) -> np.ndarray:
        rows, columns = (
            ((np.arange(n) + 0.5) * m / n).astype(int) for n, m in ((height, self.height), (width, self.width))
        )
        return cv2.cvtColor(self._rgb[rows][:, columns], cv2.COLOR_RGB2GRAY)

    def window(self, left: int, top: int, right: int, bottom: int, size: tuple[int, int] | None = None) -> np.ndarray:
        view = self._rgb[top:bottom, left:right]
        return np.ascontiguousarray(view) if size in (None, (right - left, bottom - top)) else _resize(view, size)

    def copy(self, left: int, top: int, right: int, bottom: int) -> Picture:
        return ArrayPicture(self._rgb[top:bottom, left:right].copy())

    @property
    def nbytes(self) -> int:
        return self._rgb.nbytes


class FramePicture(Picture):
    """A decoded, upright frame, which is stored in the pixel format of the file."""

    def __init__(self, frame: VideoFrame, scaler: Scaler) -> None:
        self.width, self.height = frame.width, frame.height
        self._frame, self._scaler = frame, scaler

    def rgb(self) -> np.ndarray:
        return np.ascontiguousarray(self._frame.to_ndarray(format="rgb24"))

    def thumbnail(self, width: int, height: int) -> np.ndarray:
        return self._scaler.sample(self._frame, (width, height))

    def window(self, left: int, top: int, right: int, bottom: int, size: tuple[int, int] | None = None) -> np.ndarray:
        window = (left, top, right - left, bottom - top)
        return self._scaler.run(self._frame, window, size or window[2:], "rgb24")

    def snap(self, left: int, top: int, right: int, bottom: int) -> tuple[int, int, int, int]:
        left, top, right, bottom = super().snap(left, top, right, bottom)
        return left + left % 2, top + top % 2, right - right % 2, bottom - bottom % 2

    def copy(self, left: int, top: int, right: int, bottom: int) -> Picture:
        part = self._scaler.copy(self._frame, (left, top, right - left, bottom - top))
        return FramePicture(part, self._scaler)

    @property
    def nbytes(self) -> int:
        return sum(plane.buffer_size for plane in self._frame.planes)


def picture_of(frame: VideoFrame, scaler: Scaler, aspect: Fraction = _SQUARE) -> Picture:
    """The picture of a decoded frame, with square pixels, and with the container's rotation applied.

    `aspect`: width of a pixel of the frame over its height.
    """
    rotation = frame.rotation
    size = display_size(frame.width, frame.height, aspect)
    if size != (frame.width, frame.height):
        frame = scaler.stretch(frame, size)
    # In 4:1:1 and similar formats, four columns share a chroma sample, so that `snap` would be wrong. No supported
    # dataset uses such a format.
    shared = max((frame.width // max(1, part.width) for part in frame.format.components), default=1)
    if not rotation and shared <= 2:
        return FramePicture(frame, scaler)
    rgb = frame.to_ndarray(format="rgb24")
    return ArrayPicture(np.ascontiguousarray(np.rot90(rgb, round(rotation / 90) % 4)))


class Scaler:
    """Crops, scales and converts frames with FFmpeg filter graphs. Each combination of settings has its own graph."""

    def __init__(self) -> None:
        self._graphs: OrderedDict[tuple[object, ...], av.filter.Graph] = OrderedDict()

    def run(
        self, frame: VideoFrame, window: tuple[int, int, int, int] | None, size: tuple[int, int], pixels: str
    ) -> np.ndarray:
        """Crop `window` (left, top, width, height), scale it to `size` (width, height) and convert it to `pixels`.

        Returns a C-contiguous array. Without a window, the whole frame is used.
        """
        source = window[2:] if window else (frame.width, frame.height)
        how = _SHRINK if size[0] <= source[0] and size[1] <= source[1] else _ENLARGE
        at = f"{size[0]}:{size[1]}:flags="
        name = frame.format.name
        if size == source:
            steps = [("scale", at + _UNSCALED)]
        elif pixels == "rgb24" and name.startswith("yuv"):
            # A scaling step and then a conversion step take two thirds of the time of one combined step.
            between = "yuvj444p" if name.startswith("yuvj") else "yuv444p"
            steps = [("scale", at + how), ("format", between), ("scale", at + _CHROMA)]
        else:
            steps = [("scale", f"{at}{how}+{_CHROMA}")]
        return np.ascontiguousarray(self._filter(frame, window, [*steps, ("format", pixels)]).to_ndarray())

    def sample(self, frame: VideoFrame, size: tuple[int, int]) -> np.ndarray:
        """Luma of the whole frame, scaled to `size` (width, height) with nearest pixels: (height, width)."""
        steps = [("scale", f"{size[0]}:{size[1]}:flags=neighbor"), ("format", "gray")]
        return np.ascontiguousarray(self._filter(frame, None, steps).to_ndarray())

    def copy(self, frame: VideoFrame, window: tuple[int, int, int, int]) -> VideoFrame:
        """A copy of `window` (left, top, width, height) in the pixel format of the frame, with its own memory."""
        return self._filter(frame, window, [("copy", "")])

    def stretch(self, frame: VideoFrame, size: tuple[int, int]) -> VideoFrame:
        """The whole frame, enlarged to `size` (width, height) in its own pixel format by cubic interpolation."""
        return self._filter(frame, None, [("scale", f"{size[0]}:{size[1]}:flags={_ENLARGE}+{_CHROMA}")])

    def _filter(
        self, frame: VideoFrame, window: tuple[int, int, int, int] | None, steps: list[tuple[str, str]]
    ) -> VideoFrame:
        key = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range, window, *steps)
        graph = self._graphs.get(key)
        if graph is None:
            if window:
                steps = [("crop", f"{window[2]}:{window[3]}:{window[0]}:{window[1]}"), *steps]
            graph = self._graphs[key] = _graph(frame, steps)
            if len(self._graphs) > _KEPT_GRAPHS:
                self._graphs.popitem(last=False)
        else:
            self._graphs.move_to_end(key)
        graph.push(frame)
        out = graph.pull()
        assert isinstance(out, VideoFrame)
        return out


def _graph(frame: VideoFrame, steps: list[tuple[str, str]]) -> av.filter.Graph:
    graph = av.filter.Graph()
    graph.threads = 1
    chain = [graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)]
    chain += [graph.add(name, options or None) for name, options in steps]
    chain.append(graph.add("buffersink"))
    for before, after in itertools.pairwise(chain):
        before.link_to(after)
    graph.configure()
    return graph


def _resize(image: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    assert size is not None
    shrinks = size[0] <= image.shape[1] and size[1] <= image.shape[0]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
