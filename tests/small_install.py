"""Installs the wheel of this checkout in a fresh environment, measures ten pairs of videos there, prints the figures.

    python -m tests.small_install [--clips FOLDER] [--extra NAME ...]

The ten pairs have different sizes, rates and names. They are made from the clips in `--clips`, or else from faces that
the embedded corpus draws. Beside them are foreign packages `metrics`, `pipelines` and `baselines`. With `--extra`, each
extra is installed in an environment of its own, and its size is printed. Needs the package index and takes minutes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from embedded_corpus.plan import CorpusPlan
from embedded_corpus.writing import write_corpus
from talking_face.media import read_audio, read_frames, write_video
from tests.wheels import build_wheel

MOST_MB, MOST_S, MOST_ONE_S = 500, 60.0, 3.0  # the limits of the core installation, of ten pairs, and of one pair
FOREIGN = ("metrics", "pipelines", "baselines", "leaderboards")
KEYS = ("psnr", "ssim", "m_lmd:native-mp", "registration")
# Name of a pair, height of the generated video as a share of the real one's, and rates of both, frames/s.
PAIRS = (
    ("plain", 1.0, 25.0, 25.0),
    ("half size", 0.5, 25.0, 25.0),
    ("larger", 1.5, 25.0, 25.0),
    ("slow", 1.0, 12.5, 25.0),
    ("dreißig", 1.0, 30.0, 25.0),
    ("话语", 1.0, 25.0, 30.0),
    ("film 23.976", 0.75, 24000 / 1001, 25.0),
    ("fast-60", 1.0, 60.0, 25.0),
    ("with 'quotes' & more", 0.6, 29.97, 25.0),
    ("sub folder/deep", 1.0, 25.0, 50.0),
)


class Figure(NamedTuple):
    """One line of the printed table."""

    what: str
    value: float
    unit: str
    limit: float | None = None

    @property
    def holds(self) -> bool:
        return self.limit is None or self.value <= self.limit

    def __str__(self) -> str:
        limit = "" if self.limit is None else f"at most {self.limit:g} {self.unit}"
        return f"| {self.what} | {self.value:.{0 if self.unit == 'MB' else 1}f} {self.unit} | {limit} |"


class Environment:
    """A fresh virtual environment in a folder."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=True)
        self.bin = folder / "bin"
        (self.packages,) = folder.glob("lib/python*/site-packages")

    def install(self, requirement: str) -> float:
        """Installs with pip's own rules. Returns the seconds. Ends the program if the package index is not reached."""
        started = time.monotonic()
        pip = [str(self.bin / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode:
            last = " ".join(done.stderr.split("ERROR:")[-1].split())[:300]
            sys.exit(f"{requirement} cannot be installed; is the package index reachable from here? pip says: {last}")
        return time.monotonic() - started

    def megabytes(self) -> float:
        """The size of all installed packages on the disk, with those of a fresh environment (pip, setuptools)."""
        files = (path for path in self.packages.rglob("*") if path.is_file() and not path.is_symlink())
        return sum(path.stat().st_blocks * 512 for path in files) / 2**20

    def run(self, folder: Path, words: Sequence[str]) -> tuple[str, float]:
        """Runs `cmet-eval` in a folder. Returns its output and the seconds. Ends the program if it fails."""
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        started = time.monotonic()
        command = [str(self.bin / "cmet-eval"), *words]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"cmet-eval {' '.join(words)} ended with {done.returncode}: {done.stdout[-1000:]}{done.stderr}")
        return done.stdout, time.monotonic() - started


def main() -> int:
    """The command line of this program. Returns 1 if a figure is above its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="a folder of clips that show a face; default: drawn faces")
    parser.add_argument("--extra", action="append", default=[], help="print the size of this extra too; repeatable")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build_wheel(folder)
        figures = list(core_figures(folder, wheel, given.clips))
        for extra in given.extra:
            figures += extra_figures(folder / "extras" / extra, wheel, extra)
    print("| what | measured | limit |\n|---|---|---|")
    print(*figures, sep="\n")
    return 0 if all(figure.holds for figure in figures) else 1


def core_figures(folder: Path, wheel: Path, clips: Path | None) -> Iterator[Figure]:
    """Installs the core, and measures ten pairs and one pair. Prints the values of the ten pairs."""
    core = Environment(folder / "core")
    seconds = core.install(str(wheel))
    yield Figure("core: site-packages", core.megabytes(), "MB", MOST_MB)
    yield Figure("core: time of `pip install`", seconds, "s")
    work = folder / "work"
    write_pairs(source_clips(folder, clips), work)
    print(core.run(work, ["--version"])[0].strip())
    core.run(work, ["doctor"])
    metrics = [word for key in KEYS for word in ("--metrics", key)]
    rules = ["--rate", "25", "--size", "resize", "--length", "shorter"]
    shown, seconds = core.run(work, ["measure", "mine", "real", *metrics, *rules, "--per-clip", "--quiet"])
    print(shown)
    yield Figure(f"ten pairs, {', '.join(KEYS)}", seconds, "s", MOST_S)
    one = [core.run(work, ["measure", "mine/plain.mp4", "real/plain.mp4", *metrics[:4], "--quiet"])[1] for _ in "123"]
    yield Figure("one pair, psnr, ssim, fastest of three", min(one), "s", MOST_ONE_S)


def extra_figures(folder: Path, wheel: Path, extra: str) -> list[Figure]:
    """Installs the core with one extra in an environment of its own."""
    environment = Environment(folder)
    seconds = environment.install(f"{wheel}[{extra}]")
    size = Figure(f"core and {extra}: site-packages", environment.megabytes(), "MB")
    return [size, Figure(f"core and {extra}: time of `pip install`", seconds, "s")]


def source_clips(folder: Path, clips: Path | None) -> list[Path]:
    """Ten clips with a face and with sound."""
    if clips is None:
        clips = folder / "corpus"
        write_corpus(CorpusPlan("mead", speakers=1, seconds=2.0, only=("/front/",)), clips, workers=2, quiet=True)
    found = sorted(path for path in clips.rglob("*") if path.suffix in (".mp4", ".mpg", ".avi", ".mov"))
    if not found:
        sys.exit(f"{clips} holds no clip")
    return [found[index % len(found)] for index in range(len(PAIRS))]


def write_pairs(clips: Sequence[Path], work: Path) -> None:
    """Writes `work`/mine and `work`/real, ten videos each, and foreign packages beside them."""
    for name in FOREIGN:
        (work / name).mkdir(parents=True)
        (work / name / "__init__.py").write_text(f"raise RuntimeError('the foreign {name} was imported')\n")
    for clip, (name, scale, rate, real_rate) in zip(clips, PAIRS, strict=True):
        frames, sound = np.stack(list(read_frames(clip))), read_audio(clip)
        mine, real = work / "mine" / f"{name}.mp4", work / "real" / f"{name}.mp4"
        for path in (mine, real):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_video(real, _at_rate(frames, real_rate), real_rate, audio=sound)
        height, width = (2 * round(side * scale / 2) for side in frames.shape[1:3])
        spoilt = [cv2.resize(cv2.GaussianBlur(frame, (0, 0), 1.5), (width, height)) for frame in frames]
        write_video(mine, _at_rate(np.stack(spoilt), rate), rate, audio=sound)


def _at_rate(frames: np.ndarray, rate: float) -> np.ndarray:
    """Frames of 25 frames/s, (T, H, W, 3), at another rate: the nearest ones."""
    times = np.arange(round(len(frames) / 25 * rate)) / rate
    return frames[np.minimum(np.rint(times * 25).astype(int), len(frames) - 1)]


if __name__ == "__main__":
    sys.exit(main())
