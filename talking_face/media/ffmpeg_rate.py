"""Chooses frames as the command `ffmpeg -i IN -r 25 OUT` does, or the same command without `-r`.

The command does not choose the nearest frame in time.

Source: FFmpeg 6.1 to 9.0, fftools/ffmpeg_filter.c (`video_sync_process` with the method `VSYNC_CFR`,
`adjust_frame_pts_to_encoder_tb`). Older releases round the length of a frame to whole output frames, and can therefore
choose other frames.
"""

from __future__ import annotations

import math
from fractions import Fraction

_LATE = 1.1  # output frames: a frame that ends later than this is repeated, or the previous one is; see the source
_EARLY = 0.6
# FFmpeg rounds times to this fraction of an output frame, and then moves them away from 0 by another fraction.
_AVOID_MIDDLE = 2.0**-17


class FfmpegClock:
    """Counts how often each frame is shown. FFmpeg's arithmetic is repeated with the same rounding.

    A new frame starts at `time` and lasts for `length`. The clock compares both with the time of the next output frame.
    If the frame ends more than 1.1 output frames later, the frame or the previous frame is repeated. If it ends more
    than 1.1 output frames earlier, it is dropped. Otherwise it is shown once.
    """

    def __init__(self, fps: Fraction | int, fill_start: bool = True) -> None:
        """Start at time 0.

        Args:
            fps: the output rate, frames/s.
            fill_start: whether a first frame that starts late is shown from time 0. FFmpeg does so unless the picture
                is the only track of the file.
        """
        self.shown = 0  # index of the next output frame
        self._fill_start = fill_start
        self._fps = Fraction(fps)
        self._bits = min(max(29 - int(math.log2(Fraction(fps).numerator)), 0), 16)
        self._earlier = (0, 0, 0)  # how often the previous frame was repeated, for the last three frames

    def repeats(self, time: Fraction, length: Fraction) -> tuple[int, int]:
        """How often the previous frame and this frame are shown now: (previous, this).

        Args:
            time: start of the frame, s after the start of the file. Times must not decrease.
            length: how long the frame is shown, s, as the file states it.
        """
        start = round_half_away(time * self._fps * (1 << self._bits)) / (1 << self._bits)
        if start != round(start):
            start += math.copysign(_AVOID_MIDDLE, start)
        ahead, lasts = start - self.shown, float(length * self._fps)
        end = ahead + lasts
        if ahead < 0 < end:
            ahead = 0.0
        if not self._fill_start:
            self._fill_start = True
            if ahead >= 0.5:
                self.shown, ahead, end = round(start), 0.0, lasts
        before, total = 0, 1
        if end < -_LATE:
            total = 0
        elif end > _LATE:
            total = round(end)
            before = round(ahead - _EARLY) if ahead > _LATE else 0
        self._earlier = (before, *self._earlier[:2])
        self.shown += total
        return min(before, total), max(0, total - before)

    def rest(self) -> int:
        """How often the last frame is repeated at the end: the median of the last three repetitions."""
        count = sorted(self._earlier)[1]
        self.shown += count
        return count


def round_half_away(value: Fraction) -> int:
    """The nearest whole number; a half is rounded away from 0, as in FFmpeg's `AV_ROUND_NEAR_INF`."""
    return int(math.copysign(math.floor(abs(value) + Fraction(1, 2)), value))
