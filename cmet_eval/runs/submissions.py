"""Submissions: the videos of one method in one setting, from files to result rows.

Used for what `run` generated and for what was generated elsewhere. Scores are stored one file a video, named after a
digest of all they depend on, so a killed run loses at most the videos being scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cmet_eval.protocol.pairs import PairList, pair_file_name
from cmet_eval.protocol.setting import Setting
from cmet_eval.runs.score import Expected, Job, scoring_key, stored_scores
from cmet_leaderboards.results import ResultRow, write_results
from cmet_metrics.base import Metric
from cmet_metrics.registry import DEFAULT_METRICS, Profile, common_profile, get_metric, in_profile
from cmet_pipelines.shards import ShardSet
from talking_face.clip import Pair
from talking_face.execution.workers import Task, run_tasks
from talking_face.files import read_json, sha256_of
from talking_face.pretrained import corpus_nets
from talking_face.progress import Progress
from talking_face.reasons import ClipError, Reason, UserError

_DEADLINE_S = 300.0  # of one video; scoring one takes 2 s
_MORE_S = 60.0  # for each further video of a group
_GROUP = 16  # videos of one ground truth in a task: enough to share its landmarks


@dataclass(frozen=True)
class Submission:
    """The videos of one method in one setting, ready to be scored."""

    method: Mapping[str, Any]  # the method's record: name, revision, title, role, sees, ...
    setting: Setting
    pairs: PairList
    videos: Path  # folder
    pattern: str = "{pair}.mp4"
    records: Path | None = None  # generation records, where we generated
    failures: Mapping[str, ClipError] = field(default_factory=dict)  # pair_id -> why there is no video
    command: str = ""

    def video(self, pair: Pair) -> Path:
        return self.videos / self.pattern.format(pair=pair_file_name(pair.pair_id), pair_id=pair.pair_id)


@dataclass(frozen=True)
class Loss:
    """What one method lost for one reason."""

    videos: int  # in how many of its videos, of all settings
    of: int
    metrics: tuple[str, ...]  # sorted; empty: all that were asked for
    example: str  # the first detail

    def __str__(self) -> str:
        where = f" in {', '.join(self.metrics)}" if self.metrics else ""
        return f"{self.videos} of {self.of} videos{where}, such as: {self.example}"


@dataclass(frozen=True)
class Scored:
    """What `score_submissions` did. `lost` is by (method, reason); values that are infinite or not asked for are no
    loss. `to_get` has a line for each file without which metrics have no value."""

    results: tuple[Path, ...]
    scored: int
    kept: int
    lost: Mapping[tuple[str, str], Loss]
    to_get: tuple[str, ...]


_TRAINED: Mapping[str, Any] = {"value": None, "reason": Reason.TRAINED_ON.value, "n": 0, "stats": {}}


def pick_metrics(setting: Setting, names: Sequence[str] | None, profile: Profile | None = None) -> list[Metric]:
    """The metrics that mean something in the setting, of those asked for; None: all of the profile, or the defaults.

    Raises UserError if none does, or if they stand in no one profile.
    """
    metrics = [get_metric(n) for n in dict.fromkeys(names or (in_profile(profile) if profile else DEFAULT_METRICS))]
    common_profile((metric.key for metric in metrics), profile)
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
    profile: Profile | None = None,
) -> Scored:
    """Score what is not scored yet, and write the result rows of every submission."""
    suite = version("cmet-eval")
    corpus_nets.look_beside(data)
    outcome: dict[str, dict[str, Any] | ClipError] = {}
    jobs: dict[str, Job] = {}  # by scoring key
    waiting: dict[str, str] = {}  # name of a pair's video -> scoring key
    metrics_of: dict[str, tuple[str, ...]] = {}
    kept = 0
    for s in submissions:
        keys = tuple(metric.key for metric in wanted[s.setting.name])
        how = [*(str(metric.signature()) for metric in wanted[s.setting.name]), suite]
        for pair in s.pairs.pairs:
            name, video = _job(s, pair), s.video(pair)
            if pair.pair_id in s.failures:
                outcome[name] = s.failures[pair.pair_id]
            elif not video.is_file():
                outcome[name] = ClipError(Reason.MISSING_OUTPUT, f"expected {video.name} in {s.videos.name}/")
            else:
                expected = Expected.of(pair, wanted[s.setting.name])
                key = scoring_key(sha256_of(video), expected, shards.digest, how)
                path = out / "scores" / key[:2] / f"{key}.json"
                job = Job(key, str(video), expected, str(path))
                if stored := stored_scores(job):
                    outcome[name] = stored
                    kept += 1
                    continue
                # The same video for the same clips is scored once: what is expected does not name the setting.
                jobs.setdefault(key, job)
                waiting[name], metrics_of[key] = key, keys
    with Progress(len(jobs), unit="videos", label="score", quiet=quiet) as progress:
        failed = _score_jobs(jobs, metrics_of, data, workers, scheduler, progress)
    for name, key in waiting.items():
        outcome[name] = failed.get(key) or read_json(Path(jobs[key].out))

    written, every = [], list[ResultRow]()
    absent: dict[str, set[str]] = {}
    for s in submissions:
        metrics = wanted[s.setting.name]
        rows = list(_rows(s, metrics, outcome, shards, suite, common_profile((m.key for m in metrics), profile)))
        every += rows
        for row in rows:
            if row.reason == Reason.MISSING_WEIGHTS.value:
                absent.setdefault(" ".join(row.detail.split()), set()).add(row.metric)
        written.append(write_results(rows, out / "results", _result_record(s)))
    to_get = tuple(f"{', '.join(sorted(keys))}: {detail}" for detail, keys in sorted(absent.items()))
    return Scored(tuple(written), len(jobs), kept, _losses(every), to_get)


# No finite number, or nothing to be measured: neither is the method's, and running again changes nothing.
_NO_LOSS = (Reason.INFINITE.value, Reason.NOT_ASKED.value)


def _losses(rows: Sequence[ResultRow]) -> dict[tuple[str, str], Loss]:
    """Rows without a value, by method and reason."""
    videos: dict[str, set[tuple[str, str]]] = {}
    asked: dict[str, set[str]] = {}
    found: dict[tuple[str, str], list[ResultRow]] = {}
    for row in rows:
        videos.setdefault(row.method, set()).add((row.setting, row.pair_id))
        asked.setdefault(row.method, set()).add(row.metric)
        if row.reason and row.reason not in _NO_LOSS:
            found.setdefault((row.method, row.reason), []).append(row)
    losses = {}
    for (method, reason), lost in found.items():
        metrics = {row.metric for row in lost}
        losses[method, reason] = Loss(
            len({(row.setting, row.pair_id) for row in lost}),
            len(videos[method]),
            () if metrics == asked[method] else tuple(sorted(metrics)),
            " ".join(lost[0].detail.split())[:200],
        )
    return losses


def _score_jobs(
    jobs: Mapping[str, Job],
    metrics_of: Mapping[str, tuple[str, ...]],
    data: Path,
    workers: int,
    scheduler: str | None,
    progress: Progress,
) -> dict[str, ClipError]:
    """Score all jobs, those of one ground truth together; returns what failed, by scoring key.

    A video that hangs or crashes its process takes its group along, so what a failed group left undone is then tried
    one video at a time.
    """
    by_truth: dict[tuple[str, tuple[str, ...]], list[Job]] = {}
    for key in sorted(jobs, key=lambda key: jobs[key].video):
        # Without a ground truth there is nothing to share, and each video is a task of its own.
        by_truth.setdefault((jobs[key].expected.ground_truth_clip or key, metrics_of[key]), []).append(jobs[key])
    groups: list[list[Job]] = []
    for group in by_truth.values():
        groups += [group[start : start + _GROUP] for start in range(0, len(group), _GROUP)]
    failed: dict[str, ClipError] = {}
    for attempt in (groups, None):
        batch = attempt if attempt is not None else [[jobs[key]] for key in sorted(failed)]
        tasks = [
            Task(str(i), (group, str(data), metrics_of[group[0].key]), _DEADLINE_S + _MORE_S * (len(group) - 1))
            for i, group in enumerate(batch)
        ]
        failed = {}
        for result in run_tasks("cmet_eval.runs.score:score_group", tasks, workers=workers, scheduler=scheduler):
            group = batch[int(result.key)]
            undone = [job for job in group if read_json(Path(job.out)).get("key") != job.key]
            failed.update({job.key: result.error for job in undone if result.error is not None})
            progress.advance(len(group) - (len(undone) if attempt is not None else 0))
        if not failed:
            break
    return failed


def _rows(
    s: Submission,
    metrics: Sequence[Metric],
    outcome: Mapping[str, Mapping[str, Any] | ClipError],
    shards: ShardSet,
    suite: str,
    profile: Profile,
) -> Iterable[ResultRow]:
    """One row a pair and metric: a value, or a reason."""
    dataset = ", ".join(sorted({str(name) for name in shards.clips["dataset"]}))
    # Once a submission: the digest of 1,143 pairs takes 30 ms, and there is a row for each pair and metric.
    own = [metric for metric in metrics if metric.variant == "corpus" and s.method.get("trained_on_split")]
    known_to = {kind for kind in {_evaluator(metric) for metric in own} if _knows(kind, shards)}
    pairs_digest, rules, signatures = s.pairs.digest, s.setting.digest, {m.key: str(m.signature()) for m in metrics}
    for pair in s.pairs.pairs:
        found = outcome[_job(s, pair)]
        stored = {} if isinstance(found, ClipError) else found
        known = read_json(record_path(s, pair)) if s.records else {}
        by_metric = {item["metric"]: item for item in stored.get("scores", ())}
        for metric in metrics:
            score = by_metric.get(metric.key)
            if metric in own and _evaluator(metric) in known_to:
                score = {**_TRAINED, "detail": f"{s.method['name']} shows clips that the evaluator was trained on"}
            if score is None:
                error = found if isinstance(found, ClipError) else ClipError(Reason.CRASHED, "no score; run again")
                score = {"value": None, "reason": error.reason.value, "detail": error.detail, "n": 0, "stats": {}}
            yield ResultRow(
                setting=s.setting.name,
                method=s.method["name"],
                revision=str(s.method["revision"]),
                pair_id=pair.pair_id,
                seed=pair.seed,
                speaker=pair.speaker,
                reference_emotion=pair.reference_emotion,
                target_emotion=pair.target_emotion,
                intensity=pair.intensity,
                ground_truth_clip=pair.ground_truth_clip,
                metric=metric.key,
                signature=signatures[metric.key],
                higher_is_better=metric.higher_is_better,
                ideal=metric.ideal,
                unit=metric.unit,
                **{field: score[field] for field in ("value", "reason", "detail", "n", "stats")},
                notes="; ".join([*known.get("notes", ()), *stored.get("notes", ())]),
                codec=known.get("codec") or stored.get("codec", ""),
                video_sha256=stored.get("video_sha256"),
                dataset=dataset,
                data_digest=shards.digest,
                data_signature=shards.signature,
                pairs_digest=pairs_digest,
                rules=rules,
                profile=profile,
                suite_version=suite,
            )


def _evaluator(metric: Metric) -> corpus_nets.Kind:
    """The evaluator that a `:corpus` metric judges with."""
    return "syncnet" if metric.name.startswith("lse_") else "emotion"


def _knows(kind: corpus_nets.Kind, shards: ShardSet) -> bool:
    """Whether the evaluator was trained on clips of this training split, which a method may show.

    It was if it knows a clip's id and, of those it knows, a sound: corpora drawn by the same rules have the same ids,
    so these alone would condemn the evaluators of another seed. At most as many clips are read as it was trained on.
    Not seen: a clip that it knows under another id, or that has other samples here (cut or resampled otherwise).

    Without an evaluator False: the metric's own reason, missing-weights, says more.
    """
    try:
        trained_on = corpus_nets.find(kind).trained_on
    except (corpus_nets.MissingWeights, UserError):
        return False
    if trained_on.data == shards.digest:
        return True
    clips = shards.clips
    both = sorted(set(clips.loc[clips["split"] == "train", "clip_id"]) & set(trained_on.clips))
    return any(corpus_nets.sound_id(shards.audio(clip)) in trained_on.sounds for clip in both)


def _result_record(s: Submission) -> dict[str, Any]:
    return {
        "method": dict(s.method),
        "setting": s.setting.model_dump(mode="json"),
        "pairs": {
            "drawn": s.pairs.drawn,
            "split": s.pairs.split,
            "seeds": s.pairs.seeds,
            "missing": list(s.pairs.missing),
            "notes": list(s.pairs.notes),
        },
        "command": s.command,
    }


def record_folder(s: Submission) -> Path:
    """Folder of the generation records. Only for what was generated here."""
    assert s.records is not None
    return s.records


def record_path(s: Submission, pair: Pair) -> Path:
    return record_folder(s) / f"{pair_file_name(pair.pair_id)}.json"


def _job(s: Submission, pair: Pair) -> str:
    return f"{s.method['name']} {pair.pair_id}"
