"""The evaluation run: draw pairs, let methods generate, score what they wrote, and keep the rows.

    OUT/pairs/SETTING.parquet                    the cases
    OUT/videos/METHOD/SETTING/PAIR.mp4           what was generated, and OUT/records/... how
    OUT/scores/../KEY.json                       the scores of one video; KEY is a digest of all they depend on
    OUT/results/SETTING/METHOD@....parquet       result rows, for boards

A run that was killed is finished by the same command: a video or a score whose key is still right is kept, anything
else is made again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmet_baselines.adapters.own_process import OwnProcessMethod
from cmet_baselines.registry import catalogue, describe, get_method
from cmet_eval.protocol.pairs import PairList, draw_pairs, write_pairs
from cmet_eval.protocol.setting import Setting, get_setting
from cmet_eval.runs.generate import generation_key
from cmet_eval.runs.submissions import Loss, Submission, pick_metrics, record_folder, record_path, score_submissions
from cmet_eval.runs.timing import Aitv, summarize
from cmet_metrics.registry import Profile
from cmet_pipelines.shards import ShardSet
from cmet_reference.training.checkpoints import look_beside
from talking_face.execution.workers import Task, run_tasks
from talking_face.files import read_json, sha256_of
from talking_face.progress import Progress
from talking_face.reasons import ClipError, Reason, UserError

DEFAULT_SETTINGS = ("neutral-base", "cross-emotion")
_DEADLINE_S = 300.0  # of one video; a trivial method takes 0.2 s


@dataclass(frozen=True)
class RunSummary:
    """What a run did. `lost` is by (method, reason); values that are infinite or not asked for are no loss."""

    results: tuple[Path, ...]
    pairs: int
    generated: int
    scored: int
    kept: int
    lost: Mapping[tuple[str, str], Loss]
    seconds: float
    aitv: tuple[Aitv, ...] = ()  # of the methods that ran here
    to_get: tuple[str, ...] = ()  # a line for each file without which metrics have no value

    def __str__(self) -> str:
        told = Reason.MISSING_WEIGHTS.value  # by `to_get`
        lost = [f"{method}: {reason}, {loss}" for (method, reason), loss in sorted(self.lost.items()) if reason != told]
        return (
            f"{self.pairs} pairs; {self.generated} videos generated, {self.scored} scored, {self.kept} kept from an "
            f"earlier run, in {self.seconds:.0f} s; {'scores are missing:' if self.lost else 'every score is there'}"
            + "".join(f"\n{line}" for line in (*lost, *self.aitv, *self.to_get))
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
    profile: Profile | None = None,
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
        metrics: `name:variant`; None takes all of the profile, or the defaults without one. Those that mean nothing in
            a setting are left out of it.
        profile: evaluator profile, part of every row; None: what the metrics stand in.
        split: overrides the settings' split.
        workers, scheduler: as in `talking_face.execution.workers.run_tasks`.
        fresh: generate again what is there already.
        quiet: no progress.

    Raises:
        UserError: a name is unknown, or no pair can be drawn. What fails for one video becomes rows with a reason.
    """
    started = time.monotonic()
    look_beside(data)
    # Every name is checked before any work starts.
    rules = [get_setting(name) for name in dict.fromkeys(settings)]
    chosen = {name: get_method(name) for name in dict.fromkeys(methods)}
    if not chosen or not rules:
        raise UserError("name at least one --method and one --setting")
    if len({method.name for method in chosen.values()}) != len(chosen):
        raise UserError("two of the methods have the same name; give one of them another")
    wanted = {setting.name: pick_metrics(setting, metrics, profile) for setting in rules}
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
        # The rows of earlier draws into this folder can still be verified.
        write_pairs(pair_list, out / "pairs" / "drawn" / f"{setting.name}-{pair_list.digest}.parquet")
        for spec, method in chosen.items():
            tail = Path(method.name) / setting.name
            submission = Submission(
                method=describe(spec),
                setting=setting,
                pairs=pair_list,
                videos=out / "videos" / tail,
                records=out / "records" / tail,
                failures={},
                command=_run_command(spec, setting, max_pairs, seeds, split),
            )
            submissions.append(submission)
            # What a kill left half written. A run owns the folders of its methods.
            for folder, pattern in ((submission.videos, ".*.part.mp4"), (record_folder(submission), "*.part")):
                for stray in folder.glob(pattern):
                    stray.unlink(missing_ok=True)
            for pair in pair_list.pairs:
                key = generation_key(method.name, method.revision, pair, shards.digest)
                video, record = submission.video(pair), record_path(submission, pair)
                if not fresh and _is_current(video, record, key):
                    kept += 1
                    continue
                name = f"{method.name} {pair.pair_id}"
                jobs[name] = (method.name, setting.name, pair.pair_id)
                n_frames = lengths[pair.driving_clip]
                beside = 0 if scheduler else max(1, workers)
                args = (spec, pair, str(data), n_frames, str(video), str(record), key, beside)
                # A method that has a deadline of its own ends by it, with its own words.
                tasks.append(Task(name, args, max(_DEADLINE_S, 60.0 + getattr(method, "deadline_s", 0.0))))

    for method in chosen.values():
        if isinstance(method, OwnProcessMethod):  # ours was to learn its name; the workers start their own
            method.close()
    failures: dict[tuple[str, str], dict[str, ClipError]] = {}
    with Progress(len(tasks), unit="videos", label="generate", quiet=quiet) as progress:
        for result in run_tasks(
            "cmet_eval.runs.generate:generate_pair", tasks, workers=workers, scheduler=scheduler, progress=progress
        ):
            if result.error is not None:
                method_name, setting_name, pair_id = jobs[result.key]
                failures.setdefault((method_name, setting_name), {})[pair_id] = result.error
    for submission in submissions:
        # The dict of a frozen record is filled here, before anybody reads it.
        submission.failures.update(  # type: ignore[attr-defined]
            failures.get((str(submission.method["name"]), submission.setting.name), {})
        )
    scored = score_submissions(
        submissions,
        wanted,
        data=data,
        shards=shards,
        out=out,
        workers=workers,
        scheduler=scheduler,
        quiet=quiet,
        profile=profile,
    )
    return RunSummary(
        results=scored.results,
        pairs=n_pairs,
        generated=len(tasks) - sum(map(len, failures.values())),
        scored=scored.scored,
        kept=kept,
        lost=scored.lost,
        to_get=scored.to_get,
        seconds=time.monotonic() - started,
        aitv=tuple(
            times
            for method in chosen.values()
            for times in summarize(out / "records", method.name)
            if times.setting in wanted and times.revision == str(method.revision)
        ),
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
    profile: Profile | None = None,
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
        names = {pattern.format(pair=x, pair_id=x) for x in ("x", "y")}
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"--pattern {pattern!r} may only hold {{pair}} and {{pair_id}} ({error})") from None
    if len(names) < 2:
        raise UserError(f"--pattern {pattern!r} names one file for all pairs; it needs {{pair}} or {{pair_id}}")
    name = str(method["name"])
    if name in catalogue():
        raise UserError(f"{name} is a method of the catalogue; give your videos a --method-name of their own")
    submission = Submission(
        method=method,
        setting=setting,
        pairs=pair_list,
        videos=videos,
        pattern=pattern,
        command=f"cmet-eval score --videos VIDEOS --pairs {setting.name}.parquet --data DATA --method-name {name}",
    )
    if not any(submission.video(pair).exists() for pair in pair_list.pairs):
        first = submission.video(pair_list.pairs[0]).name
        raise UserError(
            f"{videos} holds none of the {len(pair_list.pairs)} videos; a file there should be named {first}"
        )
    wanted = {setting.name: pick_metrics(setting, metrics, profile)}
    scored = score_submissions(
        [submission],
        wanted,
        data=data,
        shards=shards,
        out=out,
        workers=workers,
        scheduler=scheduler,
        quiet=quiet,
        profile=profile,
    )
    return RunSummary(
        results=scored.results,
        pairs=len(pair_list.pairs),
        generated=0,
        scored=scored.scored,
        kept=scored.kept,
        lost=scored.lost,
        to_get=scored.to_get,
        seconds=time.monotonic() - started,
    )


def _run_command(method: str, setting: Setting, max_pairs: int | None, seeds: int | None, split: str | None) -> str:
    """The command that makes these numbers again. The data's place is left open: its digest is what counts."""
    parts = ["cmet-eval", "run", "--method", method, "--setting", setting.name, "--data", "DATA"]
    for option, value in (("--max-pairs", max_pairs), ("--seeds", seeds), ("--split", split)):
        parts += [option, str(value)] if value is not None else []
    return " ".join(parts)


def _is_current(video: Path, record: Path, key: str) -> bool:
    stored = read_json(record)
    return stored.get("key") == key and video.exists() and sha256_of(video) == stored.get("video_sha256")
