"""Speed of preprocessing on 1080p clips in MEAD's format, beside its ceiling (ceiling.py), in one run.

`make bench` prints the table; a plain test run goes through two short clips once. All rates are frames of 25/s.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import av
import psutil
import pytest

from cmet_pipelines.shards import ShardSet
from embedded_corpus.plan import CorpusPlan
from embedded_corpus.writing import write_corpus
from talking_face.faces.find import find_face
from talking_face.faces.track import search_window
from talking_face.media import iter_pictures, probe
from talking_face.pretrained.store import weight_path
from tests.models import models

pytestmark = pytest.mark.timeout(3600)
CEILING = Path(__file__).with_name("ceiling.py")
CEIL, TWO, ONE = "ceiling, 2 processes", "pipeline, 2 workers", "pipeline, 1 worker"
WHOLE, IMAGE = "landmarker on whole frames, 2 processes", "image mode on whole frames, 1 process"


@dataclass
class Cost:
    """What a command cost. `working`: seconds in which clips were worked on, without start-up and shutdown."""

    frames: int
    wall: float
    working: float
    cpu: float
    peak: int

    def line(self, name: str) -> str:
        return (
            f"{name:<44} {self.frames / self.working:7.1f} frames/s working, {self.frames / self.wall:6.1f} in all, "
            f"{1000 * self.cpu / self.frames:5.1f} CPU ms a frame, peak {self.peak / 2**20:4.0f} MB a process"
        )


def watched(commands: list[list[str]]) -> tuple[float, float, int, list[str]]:
    """(wall s, CPU s of all their processes, largest resident size of one process, stdouts) of parallel commands."""
    started = time.perf_counter()
    running = [subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for c in commands]
    cpu: dict[int, float] = {}
    peak = 0
    while any(process.poll() is None for process in running):
        for process in running:
            try:
                family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
            for member in family:
                try:
                    times = member.cpu_times()
                    cpu[member.pid] = max(cpu.get(member.pid, 0.0), times.user + times.system)
                    peak = max(peak, member.memory_info().rss)
                except psutil.NoSuchProcess:
                    pass
        time.sleep(0.1)
    wall = time.perf_counter() - started
    outputs = [process.communicate()[0] for process in running]
    assert all(process.returncode == 0 for process in running), outputs
    return wall, sum(cpu.values()), peak, outputs


def ceiling(mode: str, clips: list[tuple[str, list[int]]], processes: int) -> Cost:
    model = str(weight_path("face_landmarker", files=models()))
    commands = [
        [sys.executable, str(CEILING), mode, json.dumps(clips[part::processes]), model] for part in range(processes)
    ]
    wall, _, peak, outputs = watched(commands)
    parts = [json.loads(text) for text in outputs]
    total, cpu = sum(p["frames"] for p in parts), sum(p["cpu"] for p in parts)
    return Cost(total, wall, max(p["wall"] for p in parts), cpu, peak)


def pipeline(root: Path, out: Path, workers: int) -> tuple[Cost, int]:
    """(cost, bytes a clip)"""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "cmet_eval.cli", "preprocess", "mead", str(root), str(out), "--quiet"]
    wall, cpu, peak, _ = watched([[*command, "--workers", str(workers)]])
    shards = ShardSet(out)
    ledger = shards.ledger[shards.ledger["status"] == "kept"]
    working = ledger["seconds"].sum() / workers
    frames = int(shards.clips["n_frames"].sum())
    return Cost(frames, wall, working, cpu, peak), sum(file["bytes"] for file in shards.card["shards"].values()) // len(
        shards
    )


def window_of(path: Path) -> list[int]:
    """[left, top, width, height] of the part of the picture that the pipeline would show the landmarker."""
    picture = next(iter_pictures(path))
    box = find_face(picture, files=models())
    assert box is not None
    left, top, right, bottom = picture.snap(*search_window(box))
    return [left, top, right - left, bottom - top]


def test_preprocessing_beside_its_ceiling(benchmark, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full = benchmark.enabled
    root, out = tmp_path / "mead", tmp_path / "out"
    size, takes, rounds = ("1080p", 6, 2) if full else ("640x360", 1, 1)
    drawn = ["/happy/level_3", "/sad/level_1"] if full else ["M901/front/happy/level_1"]
    plan = CorpusPlan("mead", speakers=2, size=size, seconds=3.0 if full else 1.0, only=tuple(drawn))
    write_corpus(plan, root, quiet=True)
    for path in sorted(root.rglob("*.m[p4][4a]")):  # the same bytes under further takes
        for k in range(1, takes):
            shutil.copy(path, path.with_stem(f"{int(path.stem) + 40 * k:03d}"))
    videos = sorted(root.rglob("*.mp4"))
    assert probe(videos[0]).video is not None
    clips = [(str(path), window_of(path)) for path in videos]

    best: dict[str, Cost] = {}

    def keep(name: str, cost: Cost) -> None:
        if name not in best or cost.working < best[name].working:
            best[name] = cost

    def measure() -> None:
        for _ in range(rounds):  # in turn, so that the machine's other load falls on all alike
            keep(CEIL, ceiling("window", clips, 2))
            cost, measure.bytes = pipeline(root, out, 2)  # type: ignore[attr-defined]
            keep(TWO, cost)
            if full:
                keep(ONE, pipeline(root, out, 1)[0])
        if full:
            keep(WHOLE, ceiling("full", clips, 2))
            keep(IMAGE, ceiling("image", clips[::4], 1))

    benchmark.pedantic(measure, rounds=1)
    assert best[TWO].frames == best[CEIL].frames
    if not full:
        return
    working = {name: cost.frames / cost.working for name, cost in best.items()}
    in_all = {name: cost.frames / cost.wall for name, cost in best.items()}

    def ratio(above: str, below: str) -> str:
        a, b = working[above] / working[below], in_all[above] / in_all[below]
        return f"{above} / {below}: {a:.2f} working, {b:.2f} in all"

    with capsys.disabled():
        print(f"\n{len(videos)} clips, {best[TWO].frames} frames, {size}")
        print("\n".join(cost.line(name) for name, cost in best.items()))
        print("\n".join(ratio(*names) for names in ((TWO, CEIL), (TWO, ONE), (CEIL, WHOLE), (TWO, IMAGE))))
        print(f"{measure.bytes / 1e6:.2f} MB a clip in shards")  # type: ignore[attr-defined]


def test_memory_of_a_five_minute_clip(benchmark, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full = benchmark.enabled
    drawn = tmp_path / "drawn"
    size = "1080p" if full else "640x360"
    write_corpus(CorpusPlan("clips", speakers=1, size=size, seconds=3.0, only=("happy/level_1",)), drawn, quiet=True)
    root = tmp_path / "long"
    root.mkdir()
    seconds = loop(next(drawn.glob("*.mp4")), root / "long.mkv", times=100 if full else 4)
    command = [
        sys.executable,
        "-m",
        "cmet_eval.cli",
        "preprocess",
        "clips",
        str(root),
        str(tmp_path / "out"),
        "--quiet",
    ]

    def measure() -> None:
        measure.peak = watched([[*command, "--workers", "1", "--deadline", "1800"]])[2]  # type: ignore[attr-defined]

    benchmark.pedantic(measure, rounds=1)
    assert abs(ShardSet(tmp_path / "out").clips["n_frames"][0] - 25 * seconds) <= 2
    if full:
        with capsys.disabled():
            peak = measure.peak / 2**20  # type: ignore[attr-defined]
            print(f"\n{seconds:.0f} s of {size}: peak {peak:.0f} MB in the largest process")
        assert measure.peak < 1.5 * 2**30  # type: ignore[attr-defined]


def loop(source: Path, target: Path, times: int) -> float:
    """Writes `source` several times in a row without decoding it; returns the length in s."""
    names = target.with_suffix(".txt")
    names.write_text(f"file '{source}'\n" * times)
    with av.open(names, format="concat", options={"safe": "0"}) as container, av.open(target, "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in container.streams}
        last = dict.fromkeys(streams, -1)
        for packet in container.demux():
            index = packet.stream.index
            if packet.dts is not None and packet.dts > last[index]:  # a file's sound ends a little after its picture
                last[index] = packet.dts
                packet.stream = streams[index]
                out.mux(packet)
    names.unlink()
    with av.open(target) as container:
        return container.duration / av.time_base
