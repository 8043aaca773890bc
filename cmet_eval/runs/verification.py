"""Verifies result rows: draws some of the scored videos at random, checks their hashes, and scores them again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from cmet_eval.measuring.score_records import StoredScore, usable_scores
from cmet_eval.measuring.scoring import default_deadline
from cmet_eval.measuring.treatment import LengthRule, SizeRule, Treatment
from cmet_eval.protocol.pair_files import read_pairs
from cmet_eval.protocol.pairs import PairList
from cmet_eval.runs.score import Expected, Job, failures_of, frame_counts
from cmet_eval.runs.submissions import RULES, check_video_pattern, video_name
from cmet_eval.runs.videos_by_content import VideosByContent
from cmet_leaderboards.grid import ABSENT, Grid, grids
from cmet_leaderboards.results import Results
from cmet_metrics.base import Metric
from cmet_metrics.registry import get_metric
from cmet_pipelines.shards import ShardSet
from talking_face.clip import Pair
from talking_face.execution.options import RunOptions
from talking_face.execution.workers import Task, run_tasks
from talking_face.files import sha256_of
from talking_face.names import file_name_of
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.trained_evaluators import with_hashes
from talking_face.progress import Progress
from talking_face.reasons import Reason, UserError
from talking_face.scratch import scratch_folder
from talking_face.signature import digest

# The allowed difference is TOLERANCE * max(1, |value|). The same machine gives exactly the same values; another machine
# can round differently.
TOLERANCE = 1e-6
# Reasons of scores that were refused for all videos of a method, although each video alone has a score.
REFUSED = (Reason.MISREGISTERED.value, Reason.TRAINED_ON.value)
# The treatments that result rows of shard sets can have.
TREATMENTS = [Treatment(RULES.rate, size, length) for size in get_args(SizeRule) for length in get_args(LengthRule)]


@dataclass(frozen=True)
class Fault:
    """A difference between the result rows of one pair and the pair's video."""

    method: str
    pair_id: str
    what: str

    def __str__(self) -> str:
        return f"{self.method}, {self.pair_id}: {self.what}"


@dataclass(frozen=True)
class Verified:
    """The outcome of `verify`."""

    drawn: int  # number of videos that were checked
    videos: int  # number of videos from which the checked videos were drawn
    values: int  # number of compared values
    exact: int  # number of compared values that are exactly equal
    faults: tuple[Fault, ...]


@dataclass(frozen=True)
class Sampling:
    """Which videos are checked. The random choice depends only on the seed, the method and the pair list."""

    method: str | None = None  # check only the videos of this method; None: the videos of all methods
    share: float = 0.05  # checked share of each method's videos in each table; at least one video is checked
    seed: int = 0


@dataclass(frozen=True)
class DrawnVideos:
    """A folder of scored videos, and which of them are checked."""

    folder: Path  # contains the folders METHOD/SETTING/, the folders SETTING/, or the video files
    sampling: Sampling = Sampling()
    pattern: str = "{pair}.mp4"  # form of the videos' file names; see `video_name`


@dataclass(frozen=True)
class CheckedRow:
    """The part of a result row that is checked."""

    metric: str  # its key
    signature: str
    value: float | None
    reason: str | None


@dataclass(frozen=True)
class Check:
    """One video that is hashed and scored again."""

    method: str
    pair: Pair
    video: Path
    sha256: str  # SHA-256 of the scored video, as the result rows state it
    rows: tuple[CheckedRow, ...]

    def fault(self, what: str) -> Fault:
        return Fault(self.method, self.pair.pair_id, what)


def verify(
    results: Results,
    videos: DrawnVideos,
    data: Path,
    pairs: Sequence[Path],
    options: RunOptions | None = None,
    files: ModelFiles | None = None,
) -> Verified:
    """Scores a share of the videos again, and compares the videos' hashes and values with the result rows.

    Args:
        results: the result rows to check.
        videos: the scored videos, and which of them are checked.
        data: the shard set.
        pairs: files of pair lists. The list of each table is found by its digest.
        options: worker processes, and whether progress is printed.
        files: folders with the metrics' model files; None: the folders in the environment variables, then `data`.

    Raises:
        UserError: the result rows belong to other shards or pair lists, or there is no scored video to check.
    """
    sampling, options = videos.sampling, options or RunOptions()
    check_video_pattern(videos.pattern)
    shards = ShardSet(data)
    files = with_hashes(files or ModelFiles.from_environment(data))
    checks: list[Check] = []
    total = 0
    for grid, pair_list in _tables(results, shards, pairs, sampling.method):
        for m, (name, _) in enumerate(grid.methods):
            if sampling.method in (None, name):
                folder = videos_folder(videos.folder, name, grid.key["setting"])
                drawn, count = _draw(grid, m, pair_list, folder, videos.pattern, sampling)
                checks += drawn
                total += count
    if not checks:
        raise UserError(f"no scored video of {sampling.method or 'any method'} among these rows")
    return verify_checks(checks, total, data, options, files)


def verify_checks(checks: Sequence[Check], videos: int, data: Path, options: RunOptions, files: ModelFiles) -> Verified:
    """Hashes and scores the chosen videos, and compares hashes and values with the rows.

    Args:
        checks: the chosen videos.
        videos: number of videos from which they were chosen.
        data: the shard set.
        options: worker processes, and whether progress is printed.
        files: folders with the metrics' model files, with the hashes of the evaluators.
    """
    faults, kept = list[Fault](), list[Check]()
    for check in checks:
        if what := _file_fault(check):
            faults.append(check.fault(what))
        else:
            kept.append(check)
    values = exact = 0
    for check, scores in zip(kept, _score_again(kept, data, options, files), strict=True):
        compared, same, wrong = _compare(check, scores)
        values, exact = values + compared, exact + same
        faults += map(check.fault, wrong)
    return Verified(len(checks), videos, values, exact, tuple(faults))


def _tables(
    results: Results, shards: ShardSet, pairs: Sequence[Path], method: str | None
) -> Iterator[tuple[Grid, PairList]]:
    """The tables that contain the method, each with its pair list.

    Raises UserError if the result rows belong to other data, or if their pair list is not in `pairs`.
    """
    lists = {found.digest: found for found in map(read_pairs, pairs)}
    for grid in grids(results):
        if method is not None and method not in {name for name, _ in grid.methods}:
            continue
        key = grid.key
        if key["data_digest"] != shards.digest:
            raise UserError(
                f"rows of {key['setting']} were made on data {key['data_digest'][:12]}, --data is "
                f"{shards.digest[:12]}; give the shard set they belong to"
            )
        if key["origin"] not in (shards.origin, "unknown"):
            raise UserError(f"rows of {key['setting']} call their data {key['origin']}, but --data is {shards.origin}")
        if key["pairs_digest"] not in lists:
            raise UserError(
                f"no pair list with the digest {key['pairs_digest']} of {key['setting']}; give it with --pairs"
            )
        yield grid, lists[key["pairs_digest"]]


def videos_folder(videos: Path, method: str, setting: str) -> Path:
    """The folder of a method's videos in a setting: METHOD/SETTING or SETTING in `videos`, else `videos` itself."""
    method, setting = file_name_of(method), file_name_of(setting)
    places = (videos / method / setting, videos / setting, videos)
    return next(place for place in places if place.is_dir() or place == videos)


def _draw(
    grid: Grid, m: int, pair_list: PairList, folder: Path, pattern: str, sampling: Sampling
) -> tuple[list[Check], int]:
    """Draws videos of the table's m-th method; returns their checks, and the number of all videos of the method."""
    pairs = {pair.pair_id: pair for pair in pair_list.pairs}
    shas = _shas(grid, m)
    known = sorted(pair_id for pair_id in shas if pair_id in pairs)
    if not known:
        return [], 0
    rng = np.random.default_rng(int(digest([sampling.seed, *grid.methods[m], grid.key["pairs_digest"]], 16), 16))
    count = max(1, math.ceil(sampling.share * len(known)))
    by_content = VideosByContent(folder)
    checks = []
    for i in sorted(rng.choice(len(known), size=min(count, len(known)), replace=False)):
        pair_id = known[i]
        rows = _rows(grid, m, grid.pair_ids.index(pair_id))
        video = folder / video_name(pattern, pair_id)
        if not video.is_file():  # the names of the files were given in a table
            video = by_content.find([shas[pair_id]]) or video
        checks.append(Check(grid.methods[m][0], pairs[pair_id], video, shas[pair_id], rows))
    return checks, len(known)


def _shas(grid: Grid, m: int) -> dict[str, str]:
    """Id of a pair -> SHA-256 of the scored video. Pairs without a video are left out."""
    first = grid.row[m].max(axis=0)
    found = grid.table["video_sha256"]
    shas = {pair: found[int(row)].as_py() for pair, row in zip(grid.pair_ids, first, strict=True) if row >= 0}
    return {pair: sha for pair, sha in shas.items() if sha}


def _rows(grid: Grid, m: int, p: int) -> tuple[CheckedRow, ...]:
    """The rows of the m-th method and p-th pair, without those that were refused although the video has a score."""
    table = grid.table.select(["metric", "signature", "value", "reason"])
    index = [int(grid.row[m, c, p]) for c in range(len(grid.columns)) if grid.state[m, c, p] != ABSENT]
    rows = [CheckedRow(**row) for row in table.take(index).to_pylist()]
    return tuple(row for row in rows if row.reason not in REFUSED)


def _file_fault(check: Check) -> str:
    """How the file differs from the scored video; an empty text if the file is the scored video."""
    if not check.video.is_file():  # also false for a pipe or a device, which could be read without an end
        return f"no file {check.video}"
    found = sha256_of(check.video)
    if found != check.sha256:
        return f"the video's SHA-256 is {found[:16]}, the row says {check.sha256[:16]}"
    return ""


def _by_rules(check: Check, files: ModelFiles) -> dict[Treatment, list[Metric]]:
    """The metrics of the rows, by the treatment that the signatures state.

    A row is left out if this version of the suite has no metric and treatment with its signature.
    """
    found: dict[Treatment, list[Metric]] = {}
    for row in check.rows:
        try:
            metric = get_metric(row.metric, files, imports=False)
        except UserError:
            continue
        for rules in TREATMENTS:
            if rules.signature(metric) == row.signature:
                found.setdefault(rules, []).append(metric)
                break
    return found


def _score_again(
    checks: Sequence[Check], data: Path, options: RunOptions, files: ModelFiles
) -> list[Mapping[str, StoredScore | None]]:
    """The new scores of each check, by signature. None: scoring failed. Unknown signatures are left out."""
    n_frames = frame_counts(ShardSet(data))
    with scratch_folder() as folder:
        places: dict[tuple[int, Treatment], tuple[Path, list[Metric]]] = {}
        tasks = []
        for i, check in enumerate(checks):
            for rules, metrics in _by_rules(check, files).items():
                place = folder / f"{len(places)}.json"
                places[i, rules] = (place, metrics)
                keys = tuple(metric.key for metric in metrics)
                expected = Expected.of(check.pair, metrics)
                limit = default_deadline(n_frames.get(check.pair.driving_clip, 0))
                job = Job(place.stem, str(check.video), check.sha256, expected, str(place), keys, limit, rules)
                tasks.append(Task(place.stem, ([job], str(data), files), limit))
        with Progress(len(tasks), unit="videos", label="verify", quiet=options.quiet) as progress:
            for result in run_tasks(
                "cmet_eval.runs.score:score_group",
                tasks,
                workers=options.workers,
                memory_bytes=options.memory_bytes,
                progress=progress,
            ):
                failures_of(result)  # a failed task writes no file; `_compare` reports this as a fault
        found: list[dict[str, StoredScore | None]] = [{} for _ in checks]
        for (i, rules), (place, metrics) in places.items():
            stored = usable_scores(place)
            scores = stored.by_metric if stored else {}
            found[i] |= {rules.signature(metric): scores.get(metric.key) for metric in metrics}
    return list(found)


def _compare(check: Check, scores: Mapping[str, StoredScore | None]) -> tuple[int, int, list[str]]:
    """(number of compared values, number of exactly equal values, texts about the differences)."""
    compared = exact = 0
    wrong = []
    for row in check.rows:
        if row.signature not in scores:
            wrong.append(f"{row.metric} cannot be scored again: this suite has no {row.signature}")
        elif (new := scores[row.signature]) is None:
            wrong.append(f"{row.metric}: scoring failed")
        else:
            compared += 1
            exact += (row.value, row.reason) == (new.value, new.reason)
            if not _agree(row, new):
                wrong.append(f"{row.metric} is {_shown(new)}, the row says {_shown(row)}")
    return compared, exact, wrong


def _agree(old: CheckedRow, new: StoredScore) -> bool:
    if old.value is None or new.value is None:
        return old.value is new.value and old.reason == new.reason
    return abs(old.value - new.value) <= TOLERANCE * max(1.0, abs(old.value))


def _shown(score: CheckedRow | StoredScore) -> str:
    return repr(score.value) if score.value is not None else str(score.reason)
