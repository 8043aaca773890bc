"""For `tests.hostile.media`: clips in many formats, a place for the file of one try, and the judges of an outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from talking_face.media import read_frames
from tests.hostile import media_clips as clips
from tests.hostile.media_clips import Recipe, marked, tone, write
from tests.hostile.media_reader import Outcome

COUNT = 40  # frames of a clip
SECONDS = COUNT / 25
REAL = Path(__file__).parents[2].parent / "shared/data/clips"

Judge = Callable[[Outcome], str]  # what is wrong, or ""
Rng = np.random.Generator


@dataclass(frozen=True)
class Made:
    """A file, and the judge of its outcome. `member`: the file is this member of a tar archive."""

    path: Path
    judge: Judge
    member: str = ""


FORMATS: dict[str, Recipe] = {
    "mp4": Recipe(None),
    "mov": Recipe(None, suffix="mov"),
    "mkv": Recipe(None, suffix="mkv"),
    "webm": Recipe(None, suffix="webm", codec="libvpx", options={"cpu-used": "8"}, sound_codec="libopus"),
    "avi": Recipe(None, suffix="avi", codec="mpeg4", sound_codec="pcm_s16le"),
    "mpg": Recipe(None, suffix="mpg", codec="mpeg1video", sound_codec="mp2"),
    "ts": Recipe(None, suffix="ts", codec="mpeg2video", sound_codec="mp2"),
    "flv": Recipe(None, suffix="flv", codec="flv", sound_codec="libmp3lame"),
    "asf": Recipe(None, suffix="wmv", codec="wmv2", sound_codec="libmp3lame"),
    "10-bit": Recipe(None, pixels="yuv420p10le"),
    "grey": Recipe(None, pixels="gray"),
    "alpha": Recipe(None, suffix="mov", codec="prores_ks", pixels="yuva444p10le", sound_codec="pcm_s16le"),
    "interlaced": Recipe(None, suffix="mkv", codec="mpeg2video", options={"flags": "+ilme+ildct", "top": "1"}),
    "4:1:1": Recipe(None, suffix="mkv", codec="ffv1", pixels="yuv411p"),
    "rgb": Recipe(None, suffix="avi", codec="huffyuv", pixels="rgb24", sound_codec="pcm_s16le"),
}
PLAIN = ("mp4", "mov", "mkv", "webm", "avi", "mpg", "ts", "flv", "asf")
# The header states no length, or FFmpeg ignores it in a cut file (asf), so that a file that ends early looks complete.
WITHOUT_LENGTH = ("mpg", "ts", "asf")


class Stock:
    """The pictures of real clips, and undamaged files made of them."""

    def __init__(self, folder: Path, real: Sequence[Path]) -> None:
        self._folder = folder
        self._pictures = [read_frames(path)[:COUNT] for path in real] or [_drawn()]

    @cache  # noqa: B019 - one stock lives as long as the program
    def frames(self, index: int, count: int = COUNT) -> np.ndarray:
        """Marked frames with the pictures of one clip."""
        return marked(self._pictures[index % len(self._pictures)], count)

    def recipe(self, kind: str, index: int) -> Recipe:
        """The recipe of an undamaged clip."""
        form = FORMATS[kind]
        rate = 48000 if form.suffix == "webm" else clips.RATE
        return replace(form, frames=self.frames(index), sounds=(tone(SECONDS, rate),), sound_rate=rate)

    @cache  # noqa: B019 - one stock lives as long as the program
    def data(self, kind: str, index: int) -> bytes:
        """The bytes of an undamaged clip."""
        path = self._folder / f"stock-{kind.replace(':', '')}-{index}"
        write(path, self.recipe(kind, index))
        return path.read_bytes()


def _drawn() -> np.ndarray:
    from embedded_corpus.clip import ClipSpec, render_clip

    return render_clip(ClipSpec("M901", "happy", 2, 1, ("s01", "s02"), 0.8, 320, 240))[0][:COUNT]


@dataclass(frozen=True)
class Place:
    """Where a maker writes its file, and its source of chance."""

    folder: Path
    rng: Rng
    stock: Stock

    def path(self, name: str) -> Path:
        """The path of a file."""
        return self.folder / name

    def put(self, name: str, data: bytes) -> Path:
        """Writes a file."""
        self.path(name).write_bytes(data)
        return self.path(name)

    def pick(self, values: Sequence[object]) -> object:
        """One of the values."""
        return values[int(self.rng.integers(len(values)))]

    def clip(self, kinds: Sequence[str] = PLAIN) -> tuple[str, bytes]:
        """(kind, bytes) of an undamaged clip."""
        kind = str(self.pick(kinds))
        return kind, self.stock.data(kind, int(self.rng.integers(3)))

    def recipe(self, kind: str = "mp4") -> Recipe:
        """The recipe of an undamaged clip."""
        return self.stock.recipe(kind, int(self.rng.integers(3)))


def anything(_: Outcome) -> str:
    """Every answer is right: the header itself was damaged, so that no truth is known."""
    return ""


def refused(*reasons: str, sound: bool = True) -> Judge:
    """The picture, and the sound too, must have one of the reasons."""

    def judge(out: Outcome) -> str:
        parts = [out.picture, out.sound] if sound else [out.picture]
        wrong = [part or "accepted" for part in parts if part not in reasons]
        return f"{wrong[0]} in place of {' or '.join(reasons)}" if wrong else ""

    return judge


def complete_or_refused(kind: str) -> Judge:
    """If the picture is accepted, it must have nearly all frames, or be a beginning if the length is not stated."""

    def judge(out: Outcome) -> str:
        if out.picture or (kind in WITHOUT_LENGTH and len(out.numbers) <= COUNT + 1):
            return ""
        return (
            "" if COUNT - 3 <= len(out.numbers) <= COUNT + 1 else f"accepted with {len(out.numbers)} of {COUNT} frames"
        )

    return judge


def right(
    numbers: Sequence[int] | None = None,
    disc: float = 1.0,
    starts: float | None = 0.0,
    note: str = "",
    slack: int = 0,
) -> Judge:
    """The frames and the sound must be these. `slack`: number of frames at the end that may differ."""
    wanted = list(range(COUNT) if numbers is None else numbers)

    def judge(out: Outcome) -> str:
        if out.picture:
            return f"refused as {out.picture}"
        sure = len(wanted) - slack
        if out.numbers[:sure] != wanted[:sure] or abs(len(out.numbers) - len(wanted)) > max(1, slack):
            return f"frames {_short(out.numbers)} in place of {_short(wanted)}"
        if abs(out.disc / disc - 1) > 0.05:
            return f"a disc of {out.disc:.2f} in place of {disc:.2f}"
        if out.stated != out.size:
            return f"probe states {out.stated}, frames have {out.size}"
        if starts is not None and (out.sound or out.starts is None or abs(out.starts - starts) > 0.03):
            return f"sound {out.sound or out.starts} in place of {starts:.2f} s"
        return "" if not note or any(note in one for one in out.notes) else f"no note {note} in {out.notes}"

    return judge


def _short(numbers: Sequence[int]) -> str:
    return f"{len(numbers)}: {' '.join(map(str, numbers[:6]))} .. {' '.join(map(str, numbers[-3:]))}"
