"""The evaluation run: draw pairs, let methods generate, score what they wrote, and keep the rows.

    OUT/pairs/SETTING.parquet                    the cases
    OUT/videos/METHOD/SETTING/PAIR.mp4           what was generated, and OUT/records/... how
    OUT/scores/METHOD/SETTING/PAIR.json          the scores of one video
    OUT/results/SETTING/METHOD@....parquet       result rows, for boards

A run that was killed is finished by the same command: a video or a score whose key (a digest of all it depends on) is
still right is kept, anything else is made again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from baselines.registry import describe, get_method
from cmet_eval.generation import file_sha256, generation_key, read_json
from cmet_eval.pairs import PairList, draw_pairs, pair_file_name, write_pairs
from cmet_eval.scoring import scoring_key
from cmet_eval.settings import Setting, get_setting
from leaderboards.results import write_results
from metrics.base import Metric
from metrics.registry import DEFAULT_METRICS, get_metric
from pipelines.shards import ShardSet
from pipelines.workers import Task, run_tasks
from talking_face.clip import Pair
from talking_face.progress import Progress
from talking_face.reasons import ClipError, Reason, UserError

PROFILE = "embedded"  # evaluators that come from the Python package index alone
DEFAULT_SETTINGS = ("neutral-base", "cross-emotion")
_DEADLINE_S = 300.0  # of one video; a trivial method takes 0.2 s, scoring 1 s


@dataclass(frozen=True)
class Submission:
    """The videos of one method in one setting, ready to be scored."""

    method: Mapping[str, Any]  # the method's record: name, revision, title, role, sees, ...
    setting: Setting
    pairs: PairList
    videos: Path  # folder
    scores: Path  # folder
    pattern: str = "{pair}.mp4"
    records: Path | None = None  # generation records, where we generated
    failures: Mapping[str, ClipError] = field(default_factory=dict)  # pair_id -> why there is no video
    command: str = ""

    def video(self, pair: Pair) -> Path:
        return self.videos / self.pattern.format(pair=pair_file_name(pair.pair_id), pair_id=pair.pair_id)


@dataclass(frozen=True)
class RunSummary:
    """What a run did. `lost` counts (method, reason) over rows; infinite values are no loss."""

    results: tuple[Path, ...]
    pairs: int
    generated: int
    scored: int
    kept: int
    lost: Mapping[tuple[str, str], int]
    seconds: float

    def __str__(self) -> str:
        lost = "; ".join(f"{method}: {count} x {reason}" for (method, reason), count in sorted(self.lost.items()))
        return (
            f"{self.pairs} pairs; {self.generated} videos generated, {self.scored} scored, {self.kept} kept from an "
            f"earlier run, in {self.seconds:.0f} s; {'scores missing: ' + lost if lost else 'every score is there'}"
        )


def run(
    methods: Sequence[str],
    settings: Sequence[str] = DEFAULT_SETTINGS,
    *,
    data: Path,
    out: Path,
    max_pairs: int | None = None,
    seeds: int | None = None,
    metrics: Sequence[str] | None = None,
    split: str | None = None,
    workers: int = 2,
    scheduler: str | None = None,
    fresh: bool = False,
    quiet: bool = False,
) -> RunSummary:
    """Generate and score every pair of every setting with every method.

    Args:
        methods: names from the catalogue, or `module:Class`.
        settings: names, or paths to TOML files.
        data: folder of a shard set.
        out: where everything goes; see the module's docstring.
        max_pairs: balanced subset of that size a setting; None takes all.
        seeds: None takes each setting's own number.
        metrics: `name:variant`; None takes the defaults. Those that mean nothing in a setting are left out of it.
        split: overrides the settings' split.
        workers, scheduler: as in `pipelines.workers.run_tasks`.
        fresh: generate again what is there already.
        quiet: no progress.

    Raises:
        UserError: a name is unknown, or no pair can be drawn. What fails for one video becomes rows with a reason.
    """
    started = time.monotonic()
    # Every name is checked before any work starts.
    rules = [get_setting(name) for name in dict.fromkeys(settings)]
    chosen = {name: get_method(name) for name in dict.fromkeys(methods)}
    if not chosen or not rules:
        raise UserError("name at least one --method and one --setting")
    if len({method.name for method in chosen.values()}) != len(chosen):
        raise UserError("two of the methods have the same name; give one of them another")
    wanted = {setting.name: pick_metrics(setting, metrics) for setting in rules}
    shards = ShardSet(data)

    lengths = {str(k): int(v) for k, v in shards.clips.set_index("clip_id")["n_frames"].items()}
    submissions: list[Submission] = []
    tasks: list[Task] = []
    jobs: dict[str, tuple[str, str, str]] = {}
    n_pairs = kept = 0
    for setting in rules:
        pair_list = draw_pairs(
            shards.clips,
            setting,
            data_digest=shards.digest,
            seeds=seeds,
            max_pairs=max_pairs,
            split=split,
            valid=shards.valid,
        )
        n_pairs += len(pair_list.pairs)
        write_pairs(pair_list, out / "pairs" / f"{setting.name}.parquet")
        for spec, method in chosen.items():
            tail = Path(method.name) / setting.name
            submission = Submission(
                method=describe(spec),
                setting=setting,
                pairs=pair_list,
                videos=out / "videos" / tail,
                scores=out / "scores" / tail,
                records=out / "records" / tail,
                failures={},
                command=_run_command(spec, setting, max_pairs, seeds, split),
            )
            submissions.append(submission)
            for pair in pair_list.pairs:
                key = generation_key(method.name, method.revision, pair, shards.digest)
                video, record = submission.video(pair), _record_path(submission, pair)
                if not fresh and _is_current(video, record, key):
                    kept += 1
                    continue
                name = f"{method.name} {pair.pair_id}"
                jobs[name] = (method.name, setting.name, pair.pair_id)
                n_frames = lengths[pair.driving_clip]
                args = (spec, pair, str(data), n_frames, str(video), str(record), key)
                tasks.append(Task(name, args, _DEADLINE_S))

    failures: dict[tuple[str, str], dict[str, ClipError]] = {}
    with Progress(len(tasks), unit="videos", label="generate", quiet=quiet) as progress:
        for result in run_tasks(
            "cmet_eval.generation:generate_pair", tasks, workers=workers, scheduler=scheduler, progress=progress
        ):
            if result.error is not None:
                method_name, setting_name, pair_id = jobs[result.key]
                failures.setdefault((method_name, setting_name), {})[pair_id] = result.error
    for submission in submissions:
        # The dict of a frozen record is filled here, before anybody reads it.
        submission.failures.update(  # type: ignore[attr-defined]
            failures.get((str(submission.method["name"]), submission.setting.name), {})
        )
    summary = score_submissions(
        submissions, wanted, data=data, shards=shards, out=out, workers=workers, scheduler=scheduler, quiet=quiet
    )
    return RunSummary(
        results=summary.results,
        pairs=n_pairs,
        generated=len(tasks) - sum(map(len, failures.values())),
        scored=summary.scored,
        kept=kept,
        lost=summary.lost,
        seconds=time.monotonic() - started,
    )


def score(
    videos: Path,
    pair_list: PairList,
    *,
    method: Mapping[str, Any],
    data: Path,
    out: Path,
    setting: Setting | None = None,
    metrics: Sequence[str] | None = None,
    pattern: str = "{pair}.mp4",
    workers: int = 2,
    scheduler: str | None = None,
    quiet: bool = False,
) -> RunSummary:
    """Score a folder of videos that were generated elsewhere.

    Args:
        videos: the folder. A file that is missing becomes rows with `missing-output`.
        pair_list: what they were generated from.
        method: record with at least `name` and `revision`.
        data: folder of the shard set that the pairs were drawn from.
        out: as in `run`.
        setting: the pair list's setting; None looks its name up.
        pattern: file name of a pair; `{pair}` is `pair_file_name`'s result, `{pair_id}` the id itself.

    Raises:
        UserError: the pairs belong to other data or other rules, the folder is missing or holds none of the files.
    """
    started = time.monotonic()
    shards = ShardSet(data)
    setting = setting or get_setting(pair_list.setting)
    if pair_list.data_digest != shards.digest:
        raise UserError(
            f"the pairs were drawn from data {pair_list.data_digest[:12]}, but {data} is {shards.digest[:12]}; "
            "give the shard set they belong to with --data"
        )
    if pair_list.rules != setting.digest:
        raise UserError(f"the pairs follow other rules of {setting.name} ({pair_list.rules}) than this suite has")
    if not videos.is_dir():
        raise UserError(f"no folder {videos}")
    try:
        pattern.format(pair="x", pair_id="x")
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(f"--pattern {pattern!r} may only hold {{pair}} and {{pair_id}} ({error})") from None
    name = str(method["name"])
    submission = Submission(
        method=method,
        setting=setting,
        pairs=pair_list,
        videos=videos,
        scores=out / "scores" / name / setting.name,
        pattern=pattern,
        command=f"cmet-eval score --videos VIDEOS --pairs {setting.name}.parquet --data DATA --method-name {name}",
    )
    if not any(submission.video(pair).exists() for pair in pair_list.pairs):
        first = submission.video(pair_list.pairs[0]).name
        raise UserError(
            f"{videos} holds none of the {len(pair_list.pairs)} videos; a file there should be named {first}"
        )
    wanted = {setting.name: pick_metrics(setting, metrics)}
    summary = score_submissions(
        [submission], wanted, data=data, shards=shards, out=out, workers=workers, scheduler=scheduler, quiet=quiet
    )
    return RunSummary(
        results=summary.results,
        pairs=len(pair_list.pairs),
        generated=0,
        scored=summary.scored,
        kept=summary.kept,
        lost=summary.lost,
        seconds=time.monotonic() - started,
    )


def pick_metrics(setting: Setting, names: Sequence[str] | None) -> list[Metric]:
    """The metrics asked for (None: the defaults) that mean something in the setting. Raises UserError if none does."""
    metrics = [get_metric(name) for name in dict.fromkeys(names or DEFAULT_METRICS)]
    allowed = [metric for metric in metrics if setting.allows(metric.key)]
    if not allowed:
        asked = ", ".join(metric.key for metric in metrics)
        raise UserError(f"none of {asked} means anything in {setting.name}; it takes {', '.join(setting.metrics)}")
    return allowed


def score_submissions(
    submissions: Sequence[Submission],
    wanted: Mapping[str, Sequence[Metric]],
    *,
    data: Path,
    shards: ShardSet,
    out: Path,
    workers: int,
    scheduler: str | None,
    quiet: bool,
) -> RunSummary:
    """Score what is not scored yet, one task a video, and write the result rows of every submission."""
    suite = version("cmet-eval")
    done: dict[str, dict[str, Any]] = {}
    errors: dict[str, ClipError] = {}
    tasks: list[tuple[tuple[str, ...], Task]] = []
    for s in submissions:
        signatures = [str(metric.signature()) for metric in wanted[s.setting.name]]
        keys = tuple(metric.key for metric in wanted[s.setting.name])
        for pair in s.pairs.pairs:
            name, video = _job(s, pair), s.video(pair)
            if pair.pair_id in s.failures:
                errors[name] = s.failures[pair.pair_id]
            elif not video.exists():
                errors[name] = ClipError(Reason.MISSING_OUTPUT, f"expected {video.name} in {s.videos.name}/")
            else:
                key = scoring_key(file_sha256(video), pair, shards.digest, signatures, suite)
                path = s.scores / f"{pair_file_name(pair.pair_id)}.json"
                if (stored := read_json(path)).get("key") == key:
                    done[name] = stored
                    continue
                known = read_json(_record_path(s, pair)) if s.records else {}
                known = {field: known[field] for field in ("codec", "notes") if field in known}
                args = (str(video), pair, str(data), keys, key, str(path), known)
                tasks.append(((pair.ground_truth_clip or "", name), Task(name, args, _DEADLINE_S)))
    kept = len(done)
    # In the order of ground truth, so that a worker finds the target of its next task in its cache.
    ordered = [task for _, task in sorted(tasks, key=lambda item: item[0])]
    with Progress(len(ordered), unit="videos", label="score", quiet=quiet) as progress:
        for result in run_tasks(
            "cmet_eval.scoring:score_pair", ordered, workers=workers, scheduler=scheduler, progress=progress
        ):
            if result.error is not None:
                errors[result.key] = result.error
            else:
                done[result.key] = result.value

    written, lost = [], Counter[tuple[str, str]]()
    for s in submissions:
        rows = list(_rows(s, wanted[s.setting.name], done, errors, shards, suite))
        lost.update(
            (row["method"], row["reason"]) for row in rows if row["reason"] and row["reason"] != Reason.INFINITE.value
        )
        written.append(write_results(rows, out / "results", _result_record(s)))
    return RunSummary(tuple(written), 0, 0, len(ordered), kept, dict(lost), 0.0)


def _rows(
    s: Submission,
    metrics: Sequence[Metric],
    done: Mapping[str, Mapping[str, Any]],
    errors: Mapping[str, ClipError],
    shards: ShardSet,
    suite: str,
) -> Iterable[dict[str, Any]]:
    """One row a pair and metric: a value, or a reason."""
    dataset = ", ".join(sorted({str(name) for name in shards.clips["dataset"]}))
    for pair in s.pairs.pairs:
        name = _job(s, pair)
        stored = done.get(name, {})
        by_metric = {item["metric"]: item for item in stored.get("scores", ())}
        for metric in metrics:
            outcome = by_metric.get(metric.key)
            if outcome is None:
                error = errors.get(name) or ClipError(Reason.CRASHED, "the score is missing; run again")
                outcome = {"value": None, "reason": error.reason.value, "detail": error.detail, "n": 0, "stats": {}}
            yield {
                "setting": s.setting.name,
                "method": s.method["name"],
                "revision": str(s.method["revision"]),
                "pair_id": pair.pair_id,
                "seed": pair.seed,
                "speaker": pair.speaker,
                "reference_emotion": pair.reference_emotion,
                "target_emotion": pair.target_emotion,
                "intensity": pair.intensity,
                "ground_truth_clip": pair.ground_truth_clip,
                "metric": metric.key,
                "signature": str(metric.signature()),
                "higher_is_better": metric.higher_is_better,
                "unit": metric.unit,
                **{field: outcome[field] for field in ("value", "reason", "detail", "n", "stats")},
                "notes": "; ".join(stored.get("notes", ())),
                "codec": stored.get("codec", ""),
                "video_sha256": stored.get("video_sha256"),
                "dataset": dataset,
                "data_digest": shards.digest,
                "data_signature": shards.signature,
                "pairs_digest": s.pairs.digest,
                "rules": s.setting.digest,
                "profile": PROFILE,
                "suite_version": suite,
            }


def _result_record(s: Submission) -> dict[str, Any]:
    return {
        "method": dict(s.method),
        "setting": s.setting.model_dump(mode="json"),
        "pairs": {
            "drawn": s.pairs.drawn,
            "split": s.pairs.split,
            "seeds": s.pairs.seeds,
            "missing": list(s.pairs.missing),
        },
        "command": s.command,
    }


def _run_command(method: str, setting: Setting, max_pairs: int | None, seeds: int | None, split: str | None) -> str:
    """The command that makes these numbers again. The data's place is left open: its digest is what counts."""
    parts = ["cmet-eval", "run", "--method", method, "--setting", setting.name, "--data", "DATA"]
    for option, value in (("--max-pairs", max_pairs), ("--seeds", seeds), ("--split", split)):
        parts += [option, str(value)] if value is not None else []
    return " ".join(parts)


def _is_current(video: Path, record: Path, key: str) -> bool:
    stored = read_json(record)
    return stored.get("key") == key and video.exists() and file_sha256(video) == stored.get("video_sha256")


def _record_path(s: Submission, pair: Pair) -> Path:
    assert s.records is not None
    return s.records / f"{pair_file_name(pair.pair_id)}.json"


def _job(s: Submission, pair: Pair) -> str:
    return f"{s.method['name']} {pair.pair_id}"
