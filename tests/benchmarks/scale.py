"""Scoring at the papers' size, 1,143 pairs x 12 methods: does it survive losing a worker and its own death, is memory
flat, and how long does it take?

    python -m tests.benchmarks.scale OUT [--methods 12] [--share 1.0] [--workers 2]

The pairs are C-MET's rows on MEAD, drawn from 1,200 clips of four frames of 64 px, written as shards by the suite's own
writer. Nothing is generated: each method's video is encoded once and linked to every pair, so that each of the 13,716
is scored against a ground truth of its own, by PSNR. One worker is killed at a quarter of the scores, the whole
run at half; a second run finishes. Then the board is built. Prints, for each eighth of a run's scores, the largest sum
of proportional set sizes of the process tree.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa

from cmet_eval.protocol.draw import Draw, draw_pairs
from cmet_eval.protocol.pair_files import write_pairs
from cmet_eval.protocol.published_lists import read_list
from cmet_eval.protocol.setting import get_setting
from cmet_eval.runs.generate import WRITER
from cmet_eval.runs.metrics import Scoring
from cmet_eval.runs.score_submissions import score_submissions
from cmet_eval.runs.submissions import Submission
from cmet_leaderboards.results import read_results
from cmet_pipelines.records import IDENTITY_FIELDS
from cmet_pipelines.shard_files import describe, to_table, write_shard
from cmet_pipelines.shards import CARD, CLIPS, SHARDS, ShardSet
from talking_face.execution.options import RunOptions
from talking_face.media.writing import Encoding, write_video
from talking_face.sealed import write_sealed_json, write_sealed_table
from tests.benchmarks.thousand_pairs import count, report
from tests.cmet_eval.conftest import make_record, picture

FRAMES, CLIPS_A_SHARD = 4, 16  # a process keeps 16 shards open, 37 KB of metadata a clip: full after 256 clips
SETTINGS = resources.files("cmet_eval") / "protocol" / "settings"


def main() -> None:
    """Read the command line, run twice, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--methods", type=int, default=12)
    parser.add_argument("--share", type=float, default=1.0, help="of the 1,143 pairs")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only-score", action="store_true", help="what is run, killed, and run again")
    args = parser.parse_args()
    pairs = round(1143 * args.share)
    if args.only_score:
        score(args.out, args.methods, pairs, args.workers)
        return
    started = time.monotonic()
    prepare(args.out)
    print(f"shards and pairs in {time.monotonic() - started:.0f} s", flush=True)
    command = [sys.executable, "-m", "tests.benchmarks.scale", *sys.argv[1:], "--only-score"]
    expected = pairs * args.methods
    report("first run, a worker killed at a quarter, all of it at half", watch(command, args.out, expected))
    report("second run", watch(command, args.out, None))
    frame = read_results(args.out / "results").frame()
    lost = frame["reason"].dropna().value_counts().to_dict()
    print(
        f"{len(frame)} rows of {frame['method'].nunique()} methods, of {expected}; without a value: {lost}", flush=True
    )
    started = time.monotonic()
    board = [sys.executable, "-m", "cmet_eval.cli", "leaderboard", "--run", str(args.out / "results")]
    subprocess.run([*board, "--out", str(args.out / "board"), "--gallery", "0"], check=True)
    print(f"board in {time.monotonic() - started:.0f} s")


def prepare(out: Path) -> None:
    """The rows' clips as shards in OUT/shards, and the setting, which is C-MET's with PSNR."""
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(str(SETTINGS / "cmet-mead.csv"), out)
    lines = (SETTINGS / "cmet-mead.toml").read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if not line.startswith(("name =", "metrics ="))]
    (out / "scale.toml").write_text("\n".join(['name = "scale"', *lines, 'metrics = ["psnr"]', ""]), encoding="utf-8")
    if (out / "shards").exists():
        return
    clips: dict[str, dict[str, str]] = {}
    for row in read_list(out / "cmet-mead.csv"):
        labels = {"dataset": "mead", "speaker": row.speaker, "sentence_id": row.sentence_id, "split": "test"}
        clips[row.source_clip] = {**labels, "emotion": "neutral"}
        clips[row.ground_truth_clip] = {**labels, "emotion": row.emotion}
    folder = out / "shards.part"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / SHARDS).mkdir(parents=True)
    records, names = [], sorted(clips)
    for start in range(0, len(names), CLIPS_A_SHARD):
        shard = f"part-{start // CLIPS_A_SHARD:03d}.parquet"
        some = [
            make_record(start + i, FRAMES, clip_id=n, **clips[n]) for i, n in enumerate(names[start:][:CLIPS_A_SHARD])
        ]
        write_shard(folder / SHARDS / shard, [to_table(record) for record in some])
        kept = {field.name for field in IDENTITY_FIELDS}
        records += [
            {k: v for k, v in r.items() if k in kept} | {"shard": shard, "row_group": i} for i, r in enumerate(some)
        ]
    fields = [*IDENTITY_FIELDS, pa.field("shard", pa.string()), pa.field("row_group", pa.int64())]
    write_sealed_table(pa.Table.from_pylist(records, schema=pa.schema(fields)), folder / CLIPS)
    shards = {path.name: describe(path) for path in sorted((folder / SHARDS).iterdir())}
    card = {
        "complete": True,
        "dataset": "clips",
        "digest": "5" * 32,
        "signature": "shards|version:scale",
        "shards": shards,
    }
    write_sealed_json(folder / CARD, card)
    folder.rename(out / "shards")


def score(out: Path, methods: int, pairs: int, workers: int) -> None:
    """Link every method's video to every pair, and score what has no score yet."""
    shards, setting = ShardSet(out / "shards"), get_setting(str(out / "scale.toml"))
    drawn = draw_pairs(shards.clips, setting, Draw(max_pairs=pairs), data_digest=shards.digest)
    assert len(drawn.pairs) == pairs, (len(drawn.pairs), drawn.missing)
    write_pairs(drawn, out / "pairs" / "scale.parquet")
    submissions = []
    for i in range(methods):
        name = f"method-{i + 1:02d}"
        s = Submission(
            method={"name": name, "revision": "1", "title": name, "role": "method"},
            setting=setting,
            pairs=drawn,
            videos=out / "videos" / name,
        )
        s.videos.mkdir(parents=True, exist_ok=True)
        source = out / "videos" / f"{name}.mp4"
        if not source.exists():
            frames = np.clip(picture(9, FRAMES).astype(int) + 5 * i, 0, 255).astype(np.uint8)
            write_video(source, frames, encoding=Encoding(**WRITER))
        for pair in drawn.pairs:
            if not s.video(pair).exists():
                os.link(source, s.video(pair))
        submissions.append(s)
    scoring = Scoring(["psnr:frame-mean"])
    files = scoring.model_files(shards.folder)
    wanted = {setting.name: scoring.in_setting(setting, files)}
    scored = score_submissions(submissions, wanted, scoring, shards, out, RunOptions(workers, quiet=True), files)
    print(f"{scored.scored} scored, {scored.kept} kept from an earlier run", flush=True)


def watch(command: list[str], out: Path, kill_of: int | None) -> list[tuple[float, int, float]]:
    """Run the command; (seconds, scores so far, MiB of the tree) every second.

    `kill_of`: of so many scores, a worker is killed at a quarter and the command at half.
    """
    started, seen, killed = time.monotonic(), [], False
    process = subprocess.Popen(command, start_new_session=True)
    while process.poll() is None:
        time.sleep(1.0)
        scores = count(out / "scores")
        seen.append((time.monotonic() - started, scores, own_mib(process.pid)))
        if kill_of and scores >= kill_of / 4 and not killed:
            killed = kill_worker(process.pid)
        if kill_of and scores >= kill_of / 2:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            break
    if kill_of is None and process.returncode:
        raise SystemExit(f"the run ended with {process.returncode}")
    return seen


def own_mib(pid: int) -> float:
    """Sum of the proportional shares of anonymous memory of a process and all below it, MiB (Linux)."""
    total = 0.0
    try:
        tree = [pid, *(process.pid for process in psutil.Process(pid).children(recursive=True))]
    except psutil.Error:
        return 0.0
    for one in tree:
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue  # gone by now
        total += sum(float(line.split()[1]) for line in lines if line.startswith("Pss_Anon:")) / 1024
    return total


def kill_worker(pid: int) -> bool:
    """Kill one worker below the process: a guard, whose child does the work and is ended with it."""
    workers = [child for child in psutil.Process(pid).children() if child.children()]
    if workers:
        workers[0].kill()
        print(f"killed worker {workers[0].pid} of {len(workers)}", flush=True)
    return bool(workers)


if __name__ == "__main__":
    main()
