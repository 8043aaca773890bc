"""Does a submission's table hold? Some of its videos, drawn by a seed, are hashed and scored again."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cmet_eval.protocol.pairs import PairList, pair_file_name, read_pairs
from cmet_eval.runs.score import Expected, Job
from cmet_leaderboards.grid import ABSENT, Grid, grids
from cmet_leaderboards.results import Results
from cmet_metrics.base import Metric
from cmet_metrics.registry import get_metric
from cmet_pipelines.shards import ShardSet
from talking_face.clip import Pair
from talking_face.execution.workers import Task, run_tasks
from talking_face.files import read_json, sha256_of
from talking_face.pretrained.corpus_nets import look_beside
from talking_face.progress import Progress
from talking_face.reasons import UserError
from talking_face.signature import digest

TOLERANCE = 1e-6  # of max(1, |value|): the same machine gives the same bits, another one may round otherwise
_DEADLINE_S = 600.0


@dataclass(frozen=True)
class Fault:
    """What does not hold, for one pair of one method."""

    method: str
    pair_id: str
    what: str

    def __str__(self) -> str:
        return f"{self.method}, {self.pair_id}: {self.what}"


@dataclass(frozen=True)
class Verified:
    """`drawn` of `videos` videos were looked at, `values` numbers compared; `exact` of them are the same to the bit."""

    drawn: int
    videos: int
    values: int
    exact: int
    faults: tuple[Fault, ...]


def verify(
    results: Results,
    videos: Path,
    data: Path,
    pairs: Sequence[Path],
    *,
    method: str | None = None,
    share: float = 0.05,
    seed: int = 0,
    pattern: str = "{pair}.mp4",
    workers: int = 2,
    quiet: bool = False,
) -> Verified:
    """Score a share of the videos behind `results` again.

    Args:
        results: the rows to check.
        videos: folder with METHOD/SETTING/, with SETTING/, or with the videos themselves.
        data: the shard set.
        pairs: the pair lists; each table's is found by its digest.
        method: only this one.
        share: of each method's videos in each table, at least one.
        seed: which; the draw depends on it, the method and the pair list alone.
        pattern: as in `cmet-eval score`.

    Raises:
        UserError: the shards or pair lists are not those of the rows, or no row is left to check.
    """
    shards = ShardSet(data)
    look_beside(data)
    lists = {found.digest: found for found in map(read_pairs, pairs)}
    faults: list[Fault] = []
    checks: list[_Check] = []
    total = 0
    for grid in grids(results):
        if method is not None and method not in {name for name, _ in grid.methods}:
            continue
        pair_list = _belongs(grid, shards, lists)
        for m, (name, _) in enumerate(grid.methods):
            if method in (None, name):
                found, count = _draw(
                    grid, m, pair_list, _folder(videos, name, grid.key["setting"]), pattern, share, seed
                )
                checks += found
                total += count
    if not checks:
        raise UserError(f"no scored video of {method or 'any method'} among these rows")
    kept = []
    for check in checks:
        if why := _file_fault(check):
            faults.append(Fault(check.method, check.pair.pair_id, why))
        else:
            kept.append(check)
    values = exact = 0
    with tempfile.TemporaryDirectory() as folder:
        _score(kept, Path(folder), data, workers, quiet)
        for i, check in enumerate(kept):
            compared, same, wrong = _judge(check, read_json(Path(folder) / f"{i}.json"))
            values, exact = values + compared, exact + same
            faults += [Fault(check.method, check.pair.pair_id, what) for what in wrong]
    return Verified(len(checks), total, values, exact, tuple(faults))


@dataclass(frozen=True)
class _Check:
    method: str
    pair: Pair
    video: Path
    sha256: str
    rows: Mapping[str, Mapping[str, Any]]  # metric -> its row: signature, value, reason


def _belongs(grid: Grid, shards: ShardSet, lists: Mapping[str, PairList]) -> PairList:
    """The table's pair list."""
    key = grid.key
    if key["data_digest"] != shards.digest:
        raise UserError(f"rows of {key['setting']} were made on data {key['data_digest'][:12]}, --data is "
                        f"{shards.digest[:12]}; give the shard set they belong to")  # fmt: skip
    if key["pairs_digest"] not in lists:
        raise UserError(f"no pair list with the digest {key['pairs_digest']} of {key['setting']}; give it with --pairs")
    return lists[key["pairs_digest"]]


def _folder(videos: Path, method: str, setting: str) -> Path:
    places = (videos / method / setting, videos / setting, videos)
    return next(place for place in places if place.is_dir() or place == videos)


def _draw(
    grid: Grid, m: int, pair_list: PairList, folder: Path, pattern: str, share: float, seed: int
) -> tuple[list[_Check], int]:
    """The checks of one method in one table, and how many videos it has there."""
    pairs = {pair.pair_id: pair for pair in pair_list.pairs}
    shas = _shas(grid, m)
    known = sorted(pair_id for pair_id in shas if pair_id in pairs)
    if not known:
        return [], 0
    rng = np.random.default_rng(int(digest([seed, *grid.methods[m], grid.key["pairs_digest"]], 16), 16))
    count = max(1, math.ceil(share * len(known)))
    checks = []
    for i in sorted(rng.choice(len(known), size=min(count, len(known)), replace=False)):
        pair = pairs[known[i]]
        name = pattern.format(pair=pair_file_name(pair.pair_id), pair_id=pair.pair_id)
        rows = _rows(grid, m, grid.pair_ids.index(pair.pair_id))
        checks.append(_Check(grid.methods[m][0], pair, folder / name, shas[pair.pair_id], rows))
    return checks, len(known)


def _shas(grid: Grid, m: int) -> dict[str, str]:
    """Pair -> SHA-256 of the video that was scored; pairs without a video are left out."""
    first = grid.row[m].max(axis=0)
    found = grid.table["video_sha256"]
    shas = {pair: found[int(row)].as_py() for pair, row in zip(grid.pair_ids, first, strict=True) if row >= 0}
    return {pair: sha for pair, sha in shas.items() if sha}


def _rows(grid: Grid, m: int, p: int) -> dict[str, dict[str, Any]]:
    names = ["signature", "value", "reason", "metric"]
    table = grid.table.select(names)
    index = [int(grid.row[m, c, p]) for c in range(len(grid.columns)) if grid.state[m, c, p] != ABSENT]
    return {str(row["metric"]): row for row in table.take(index).to_pylist()}


def _file_fault(check: _Check) -> str:
    if not check.video.exists():
        return f"no file {check.video}"
    found = sha256_of(check.video)
    if found != check.sha256:
        return f"the video's SHA-256 is {found[:16]}, the row says {check.sha256[:16]}"
    return ""


def _metrics(check: _Check) -> list[Metric]:
    """Those whose rows this suite makes under the same signature."""
    found = []
    for key, row in check.rows.items():
        try:
            metric = get_metric(key)
        except UserError:
            continue
        if str(metric.signature()) == row["signature"]:
            found.append(metric)
    return found


def _score(checks: Sequence[_Check], folder: Path, data: Path, workers: int, quiet: bool) -> None:
    tasks = []
    for i, check in enumerate(checks):
        metrics = _metrics(check)
        if metrics:
            job = Job(str(i), str(check.video), Expected.of(check.pair, metrics), str(folder / f"{i}.json"))
            tasks.append(Task(str(i), ([job], str(data), tuple(metric.key for metric in metrics)), _DEADLINE_S))
    with Progress(len(tasks), unit="videos", label="verify", quiet=quiet) as progress:
        for _ in run_tasks("cmet_eval.runs.score:score_group", tasks, workers=workers, progress=progress):
            pass  # what failed has no file, and is a fault below


def _judge(check: _Check, again: Mapping[str, Any]) -> tuple[int, int, list[str]]:
    """(values compared, the same to the bit, what is wrong)."""
    scores = {item["metric"]: item for item in again.get("scores", ())}
    possible = {metric.key for metric in _metrics(check)}
    compared = exact = 0
    wrong = []
    for key, row in check.rows.items():
        if key not in possible:
            wrong.append(f"{key} cannot be scored again: this suite has no {row['signature']}")
        elif key not in scores:
            wrong.append(f"{key}: scoring failed")
        else:
            compared += 1
            old, new = row["value"], scores[key]["value"]
            exact += (old, row["reason"]) == (new, scores[key]["reason"])
            if not _agree(old, row["reason"], new, scores[key]["reason"]):
                wrong.append(f"{key} is {_say(new, scores[key]['reason'])}, the row says {_say(old, row['reason'])}")
    return compared, exact, wrong


def _agree(old: float | None, old_reason: str | None, new: float | None, new_reason: str | None) -> bool:
    if old is None or new is None:
        return old is new and old_reason == new_reason
    return abs(old - new) <= TOLERANCE * max(1.0, abs(old))


def _say(value: float | None, reason: str | None) -> str:
    return repr(value) if value is not None else str(reason)
