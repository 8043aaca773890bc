"""Reads one media file after the other in a child process that can be killed, for `tests.hostile.media`.

The child reads each file as the suite does: `probe`, `read_frames` and `read_sound`. Its memory is limited. A file that
takes too long, or that ends the child, is reported, and the next file gets a new child.
"""

from __future__ import annotations

import contextlib
import json
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from talking_face.clip import MediaSource
from talking_face.media import AUDIO_RATE, Limits, probe, read_frames, read_sound
from talking_face.media.sound import is_nearly_silent, level
from talking_face.reasons import ClipError
from tests.hostile.media_clips import disc_of, number_of, tone

DEADLINE_S = 30.0
MEMORY = 3 << 30  # bytes of address space of the child; the libraries alone take 1 GB
LIMITS = Limits(seconds=60, frame_bytes=1 << 30)


@dataclass
class Outcome:
    """What the suite made of a file. A part has a reason, or an error that is no reason, or its values.

    Attributes:
        hung, crashed: how the child ended, if it did not answer.
        errors: exceptions that are not ClipErrors, as `probe: TypeError: ...`.
        picture, sound: the reason for which there are no frames or no sound; "" if there are.
        numbers: the number that the bars of each frame state.
        size: width and height of the frames.
        stated: width and height by `probe`.
        disc: width over height of the disc, median over the frames.
        samples: number of samples at 16 kHz.
        starts: the place in `tone` at which the sound begins, s; None if the sound is not the tone.
        level: rms of the sound.
        quiet: whether the sound counts as nearly silent.
        seconds: the time that the file took.
    """

    hung: bool = False
    crashed: str = ""
    errors: list[str] = field(default_factory=list)
    picture: str = ""
    sound: str = ""
    numbers: list[int] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    stated: list[int] = field(default_factory=list)
    disc: float = 0.0
    samples: int = 0
    starts: float | None = None
    level: float = 0.0
    quiet: bool = False
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Reader:
    """A child process that reads files. A context manager."""

    def __init__(self) -> None:
        self._child = self._start()
        self.pids = [self._child.pid]

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def read(self, path: Path, member: str = "") -> Outcome:
        """The outcome of one file, or of one member of a tar archive."""
        started = time.monotonic()
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.write(json.dumps([str(path), member]).encode() + b"\n")
        self._child.stdin.flush()
        ready = select.select([self._child.stdout], [], [], DEADLINE_S)[0]
        line = self._child.stdout.readline() if ready else b""
        if line.endswith(b"\n"):
            return Outcome(**json.loads(line), seconds=time.monotonic() - started)
        self._end()
        status = self._child.returncode
        self._child = self._start()
        self.pids.append(self._child.pid)
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return Outcome(hung=not ready, crashed="" if not ready else how, seconds=time.monotonic() - started)

    @staticmethod
    def _start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.hostile.media_reader"]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def _end(self) -> None:
        if self._child.stdin is not None:
            with contextlib.suppress(OSError):
                self._child.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout=0.5)
        self._child.kill()
        self._child.wait()


def read(path: str, member: str) -> Outcome:
    """Reads one file in this process."""
    source = MediaSource(path, member or None)
    out = Outcome()

    def part(name: str, does: Callable[[], None]) -> str:
        try:
            does()
        except ClipError as error:
            return error.reason.value
        except Exception as error:
            out.errors.append(f"{name}: {type(error).__name__}: {error}")
            return "error"
        return ""

    def stated() -> None:
        video = probe(source, LIMITS).video
        out.stated = [] if video is None else [video.width, video.height]
        out.notes += () if video is None else video.notes

    def picture() -> None:
        frames = read_frames(source, limits=LIMITS)
        out.numbers = [number_of(frame) for frame in frames]
        out.size = [frames.shape[2], frames.shape[1]]
        out.disc = float(np.median([disc_of(frame) for frame in frames[:5]]))

    def sound() -> None:
        heard = read_sound(source, limits=LIMITS)
        out.samples, out.level = len(heard.samples), level(heard.samples)
        out.quiet, out.starts = is_nearly_silent(heard.samples, AUDIO_RATE), _start_in_tone(heard.samples)
        out.notes += heard.notes

    part("probe", stated)
    out.picture, out.sound = part("picture", picture), part("sound", sound)
    return out


def _start_in_tone(samples: np.ndarray) -> float | None:
    """The place in the rising tone at which the samples begin, s; negative if the tone begins later than the samples.

    None if the samples are not the tone.
    """
    from scipy.signal import correlate

    whole, part = tone(4.0, AUDIO_RATE).astype(np.float32), samples[: 2 * AUDIO_RATE].astype(np.float32)
    if not len(part) or not part.any():
        return None
    found = correlate(whole, part, mode="full", method="fft")
    at = int(np.argmax(found)) - (len(part) - 1)
    a, b = whole[max(0, at) :][: len(part)], part[max(0, -at) :]
    size = min(len(a), len(b))
    likeness = float(np.dot(a[:size], b[:size]) / (np.linalg.norm(a[:size]) * np.linalg.norm(part) + 1e-9))
    return at / AUDIO_RATE if likeness > 0.7 else None


def _main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        path, member = json.loads(line)
        answer = asdict(read(path, member))
        del answer["seconds"]
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _main()
