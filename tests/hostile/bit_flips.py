"""Flips one bit in stored files, reads them through the suite's own readers, and compares every value.

    python -m tests.hostile.bit_flips --tries 600 --seed 1

First the suite's own writers make one file or more of each kind: a shard set (frames are drawn, not decoded), a run
of two methods with its records, scores, rows and pairs, a trained checkpoint and evaluator, and small files of other
rooms. Each try then flips one random bit in one of these files. A child process reads the file. A try is noticed if
the reader refuses the file, or leaves a part out, with a line that names the file. A try is harmless if all values
are those of the undamaged file. Otherwise a wrong value was read in silence.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import multiprocessing
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from unittest import mock

import numpy as np

from cmet_eval.measuring.score_records import usable_scores
from cmet_eval.protocol.draw import Draw
from cmet_eval.protocol.pair_files import read_pairs
from cmet_eval.runs import evaluate
from cmet_eval.runs.metrics import Scoring
from cmet_eval.runs.records import read_generation
from cmet_eval.study.key import StudyKey, read_key, write_key
from cmet_leaderboards.results import read_results
from cmet_pipelines import clip_task
from cmet_pipelines.preprocess import preprocess
from cmet_pipelines.processing import ProcessingSettings
from cmet_pipelines.shards import ShardSet
from cmet_reference.training import checkpoints
from cmet_reference.training.curve import read_curve
from cmet_reference.training.loop import fit
from cmet_reference.training.options import TrainOptions
from embedded_corpus.layouts import read_truth, write_truth
from talking_face.execution.options import RunOptions
from talking_face.files import write_bytes
from talking_face.pretrained import evaluator_networks, store, trained_evaluators
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError
from tests.cmet_reference.test_training import Line
from tests.hostile.tally import Tally, report
from tests.pipelines.drawn_clips import CODEC, draw

_ANSWER_S = 120.0  # time for one file; the slowest, a shard, takes 0.1 s
_UNREGISTERED = "deepface_emotion"  # a pretrained file of which the registry has no hash
_OPTIONS = RunOptions(workers=0, quiet=True)


@dataclass(frozen=True)
class Kind:
    """One kind of stored files: where they are, the number of tries per round, and the values that a reader returns."""

    pattern: str  # glob pattern below the folder
    share: int
    values: Callable[[Path, Path], object]  # (folder, file)


def _shard(folder: Path, path: Path) -> list[object]:
    shards = ShardSet(folder / "shards")
    found: list[object] = []
    for clip_id in shards.clips.loc[shards.clips["shard"] == path.name, "clip_id"]:
        readers = (shards.frames, shards.audio, shards.landmarks, shards.blendshapes, shards.valid)
        found += [_sha(reader(clip_id)) for reader in (*readers, shards.crop_transform)]
        found.append(_sha(shards.landmarks(clip_id, smoothed=True)))
    return found


def _checkpoint(_: Path, path: Path) -> object:
    tensors, record = checkpoints.load(path, "line")
    values = {name: _sha(tensor.numpy()) for name, tensor in sorted(tensors.items())}
    return [values, record, checkpoints.trained_on(path), checkpoints.revision(path)]


def _evaluator(_: Path, path: Path) -> object:
    found = trained_evaluators.load_emotion(ModelFiles(evaluators=(path.parent,)))
    return [found.tag, found.labels, {name: _sha(t.cpu().numpy()) for name, t in found.net.state_dict().items()}]


def _pins(folder: Path, path: Path) -> object:
    files = ModelFiles(weights=(folder / "weights",), cache=path.parent.parent)
    return store.weight_file(_UNREGISTERED, files).check


def _sha(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


KINDS: dict[str, Kind] = {
    "shard": Kind("shards/shards/*.parquet", 4, _shard),
    "clips.parquet": Kind("shards/clips.parquet", 2, lambda folder, _: ShardSet(folder / "shards").clips.to_json()),
    "ledger": Kind("shards/ledger.parquet", 2, lambda folder, _: ShardSet(folder / "shards").ledger.to_json()),
    "dataset.json": Kind("shards/dataset.json", 2, lambda folder, _: ShardSet(folder / "shards").card),
    "score JSON": Kind("run/scores/**/*.json", 2, lambda _, path: asdict(usable_scores(path) or _Nothing())),
    "record JSON": Kind("run/records/**/*.json", 2, lambda _, path: asdict(read_generation(path) or _Nothing())),
    "result rows": Kind("run/results/**/*.parquet", 2, lambda _, path: read_results(path).table.to_pylist()),
    "pairs": Kind("run/pairs/*.parquet", 2, lambda _, path: asdict(read_pairs(path))),
    "checkpoint": Kind("reference/line.safetensors", 2, _checkpoint),
    "checkpoint card": Kind("reference/line.json", 2, lambda _, path: checkpoints.read_card(path)),
    "training curve": Kind("reference/line.csv", 2, lambda _, path: read_curve(path)),
    "evaluator": Kind("evaluators/*.safetensors", 2, _evaluator),
    "pinned hashes": Kind("cache/weights/pins.json", 2, _pins),
    "study key": Kind("study/key.json", 2, lambda folder, _: asdict(read_key(folder / "study"))),
    "ground truth": Kind("truth.json", 2, lambda _, path: read_truth(path)),
}


@dataclass(frozen=True)
class _Nothing:
    """In place of a record that its reader left out."""


def make(folder: Path) -> None:
    """Writes files of all kinds below the folder, with the suite's own writers."""
    root = folder / "source"
    root.mkdir()
    rows = ["file,speaker,emotion,take,split"]
    for speaker in "AB":
        for emotion in ("neutral", "happy", "sad"):
            name = f"{speaker}-{emotion}.mp4"
            (root / name).write_bytes(name.encode())
            rows.append(f"{name},{speaker},{emotion},1,test")
    (root / "notes.txt").write_text("not a clip\n")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    with mock.patch.object(clip_task, "process_clip", draw):
        preprocess("clips", root, folder / "shards", ProcessingSettings(codec=CODEC, size=64), run=_OPTIONS)
    evaluate.run(
        ("ground-truth", "static-reference"),
        data=folder / "shards",
        out=folder / "run",
        draw=Draw(seeds=1, max_pairs=4),
        scoring=Scoring(("psnr:frame-mean", "ssim:wang2004")),
        options=_OPTIONS,
    )
    fit(Line(12), folder / "reference", TrainOptions(quiet=True))
    told = trained_evaluators.TrainedOn("emotion", "d" * 32, ("a",), ("b",), 0, ("neutral", "happy", "sad"))
    net = evaluator_networks.build_emotion(3)
    write_bytes(folder / "weights" / store.weight(_UNREGISTERED).file, b"weights")
    store.weight_file(_UNREGISTERED, ModelFiles(weights=(folder / "weights",), cache=folder / "cache"))
    content = (2, "rating", "s", "d" * 64, ["a", "b"], ["p1", "p2"], 3, 4, 0, "5a17", "1d", ["lip_sync"], (1, 5))
    videos = {f"media/{pair}-{method}.mp4": (pair, method) for pair in ("p1", "p2") for method in ("a", "b")}
    write_key(folder / "study", StudyKey(*content, videos))
    write_truth(folder / "truth.json", {"text": "a sentence", "frames": {"time": [0.0, 0.04], "mouth": [1.5, 2.25]}})
    trained_evaluators.save(folder / "evaluators" / trained_evaluators.FILES["emotion"], net.state_dict(), told)


# -- reading in a child ------------------------------------------------------------------------------------------------


def _serve(pipe: Connection, folder: Path) -> None:
    """Runs in the child: reads the files that the parent names, and answers (digest of the values, error, output)."""
    while True:
        kind, path = pipe.recv()
        printed = io.StringIO()
        answer, error = "", ""
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
            try:
                values = KINDS[kind].values(folder, path)
                answer = hashlib.sha256(json.dumps(values, default=str, sort_keys=True).encode()).hexdigest()
            except UserError as refused:
                printed.write(str(refused))
                answer = "refused"
            except BaseException as other:
                error = f"{type(other).__name__}: {' '.join(str(other).split())[:200]}"
        pipe.send((answer, error, printed.getvalue()))


class Reader:
    """A child process that reads files. It is replaced after a crash or a hang."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._folder), daemon=True)
        self._process.start()
        theirs.close()

    def read(self, kind: str, path: Path) -> tuple[str, str, str] | str:
        """The child's answer, or `crashed` or `hung`."""
        self._pipe.send((kind, path))
        try:
            if self._pipe.poll(_ANSWER_S):
                answer: tuple[str, str, str] = self._pipe.recv()
                return answer
            lost = "hung"
        except (EOFError, ConnectionResetError):
            lost = "crashed"
        self.close()
        self._start()
        return lost

    def close(self) -> None:
        """Ends the child."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


def flips(folder: Path, tries: int, seed: int) -> Iterator[tuple[str, Path, int]]:
    """(kind, file, number of the bit) of each try. Every round has the shares of KINDS."""
    rng = random.Random(seed)
    files = {kind: sorted(folder.glob(KINDS[kind].pattern)) for kind in KINDS}
    if empty := [kind for kind, paths in files.items() if not paths]:
        raise RuntimeError(f"no files of the kinds {', '.join(empty)} under {folder}")
    round_ = [kind for kind, entry in KINDS.items() for _ in range(entry.share)]
    for number in range(tries):
        kind = round_[number % len(round_)]
        path = rng.choice(files[kind])
        yield kind, path, rng.randrange(8 * path.stat().st_size)


def flip_all(folder: Path, tries: int, seed: int) -> tuple[list[Tally], dict[str, Counter[str]]]:
    """Makes all tries. Returns the tallies, and how many tries of each kind were noticed and harmless."""
    tallies = {kind: Tally(kind) for kind in KINDS}
    seen: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    reader, right = Reader(folder), {}
    try:
        for kind, path, bit in flips(folder, tries, seed):
            if path not in right:
                right[path] = reader.read(kind, path)
                if right[path][1:] != ("", "") or right[path][0] == "refused":
                    raise RuntimeError(f"{path} cannot be read undamaged: {right[path]}")
            before = path.read_bytes()
            data = bytearray(before)
            data[bit // 8] ^= 1 << bit % 8
            path.write_bytes(data)
            try:
                found = reader.read(kind, path)
            finally:
                path.write_bytes(before)
            tallies[kind].tried += 1
            outcome = _outcome(found, right[path][0], path)
            if outcome in ("noticed", "harmless"):
                seen[kind][outcome] += 1
            else:
                tallies[kind].fault(outcome, f"bit {bit} of {path.relative_to(folder)}: {found}")
    finally:
        reader.close()
    return list(tallies.values()), seen


def _outcome(found: tuple[str, str, str] | str, right: str, path: Path) -> str:
    """`noticed`, `harmless`, or the column of Tally for a fault."""
    if isinstance(found, str):
        return found
    answer, error, printed = found
    if error or (answer == "refused" and (path.name not in printed or "\n" in printed.strip())):
        return "traceback"
    if answer == right:
        return "harmless"
    return "noticed" if path.name in printed else "silently_wrong"


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes the files, flips the bits, prints the table. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="cmet-eval-bit-flips-") as name:
        make(Path(name))
        tallies, seen = flip_all(Path(name), given.tries, given.seed)
    status = report(tallies)
    for kind, counts in seen.items():
        print(f"{kind}: {counts['noticed']} noticed, {counts['harmless']} harmless")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
