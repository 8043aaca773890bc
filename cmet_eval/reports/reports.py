"""Reports beside the boards: tables as Markdown and CSV, with a picture where one helps. The same inputs give the same
bytes: nothing here knows the time or the folder.

emotion-proportion: what a classifier sees in a data set's clips (CEM-Net, Fig. 2). identity-deterioration: 1 - cosine
to the reference after a change of emotion (its Table I). confusion: emotion accuracy by class. fid: the usual FID,
pooled over videos. aitv: seconds a video, by machine.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from cmet_eval.protocol.pair_files import read_pairs
from cmet_eval.protocol.pairs import pair_file_name
from cmet_eval.runs.generate import open_shards
from cmet_eval.runs.timing import summarize
from cmet_leaderboards.results import TABLE_KEYS, Results
from cmet_leaderboards.statistics import common_pairs, mean_interval
from cmet_metrics.base import Metric, Sample
from cmet_metrics.classifiers import CLASSIFIERS, Classifier
from cmet_metrics.emotion import by_class, confusion
from cmet_metrics.fid import DatasetFid, FeatureSums
from cmet_metrics.registry import find_record
from cmet_pipelines.shards import ShardSet
from talking_face.emotions import EMOTIONS
from talking_face.execution.workers import Task, run_tasks
from talking_face.files import read_json, sha256_of, write_json
from talking_face.media.reading import read_frames
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import MissingWeights
from talking_face.progress import Progress
from talking_face.reasons import ClipError, Reason, UserError
from talking_face.signature import digest

_DEADLINE_S = 300.0  # of one clip; DeepFace takes 2 s, Inception 15
Row = tuple[Any, ...]


@dataclass(frozen=True)
class Report:
    """What `write` puts into files NAME.md, NAME.csv and one PNG a plot."""

    name: str
    markdown: str  # without the pictures
    head: tuple[str, ...]
    rows: tuple[Row, ...]
    plots: Mapping[str, Callable[[], Any]] = field(default_factory=dict)  # file stem -> a matplotlib figure


def write(report: Report, out: Path) -> Path:
    """Write the files into `out`, each by an atomic rename; returns the Markdown file's path."""
    text = report.markdown
    for stem, plot in report.plots.items():
        figure, buffer = plot(), io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
        _save(out / f"{stem}.png", buffer.getvalue())
        text += f"\n![{stem}]({stem}.png)\n"
    buffer_csv = io.StringIO()
    writer = csv.writer(buffer_csv, lineterminator="\n")
    writer.writerows([report.head, *(["" if v is None else v for v in row] for row in report.rows)])
    _save(out / f"{report.name}.csv", buffer_csv.getvalue().encode())
    _save(out / f"{report.name}.md", text.encode())
    return out / f"{report.name}.md"


# Emotion proportion --------------------------------------------------------------------------------------------------


def classifiers() -> dict[str, Classifier]:
    """Every classifier that needs no evaluator trained on the corpus, by name."""
    return {classifier.name: classifier for classifier in CLASSIFIERS.values() if classifier.evaluator is None}


def emotion_proportion(
    data: Path,
    classifier: str,
    out: Path,
    *,
    split: str = "all",
    clips: int | None = None,
    workers: int = 2,
    quiet: bool = False,
    files: ModelFiles | None = None,
) -> Report:
    """Mean confidence of each of a classifier's classes over all frames of a shard set, by the clips' label.

    Args:
        data: folder of the shard set.
        classifier: a name of `classifiers`.
        out: what was found for each clip is kept below OUT/emotion-proportion, for the next time.
        split: "all", or one value of the clips' split column.
        clips: at most so many a label, spread over them; None takes all.
        files: where the classifier's files are searched; None: by the environment.
    """
    if classifier not in classifiers():
        raise UserError(f"no classifier {classifier!r}; there are {', '.join(classifiers())}")
    judge, shards, files = classifiers()[classifier], ShardSet(data), files or ModelFiles.from_environment()
    classes = judge.labels(files)
    how = "|".join(f"{k}:{v}" for k, v in {"net": judge.name, **judge.settings(files), "resize": "256"}.items())
    table = shards.clips[shards.clips["split"] == split] if split != "all" else shards.clips
    labels = table["emotion"].where(table["emotion"].notna(), "unlabelled")
    if clips is not None:
        keep = [np.unique(np.linspace(0, len(g) - 1, min(clips, len(g))).round()) for _, g in labels.groupby(labels)]
        picked = [g.index[i.astype(int)] for (_, g), i in zip(labels.groupby(labels), keep, strict=True)]
        labels = labels.loc[np.concatenate(picked)] if picked else labels
    ids = table["clip_id"].loc[labels.index]
    if not len(ids):
        raise UserError(f"{data} has no clip in split {split!r}")
    paths = {}
    for clip_id in ids:
        key = digest([shards.digest, clip_id, how], 32)
        paths[clip_id] = out / "emotion-proportion" / key[:2] / f"{key}.json"
    absent = {clip_id: path for clip_id, path in paths.items() if not path.exists()}
    tasks = {clip_id: (str(data), clip_id, classifier, str(path), files) for clip_id, path in absent.items()}
    _work("cmet_eval.reports.reports:clip_emotions", tasks, workers, "classify", quiet)

    sums: dict[str, list[dict[str, Any]]] = {}
    for clip_id, label in zip(ids, labels, strict=True):
        sums.setdefault(str(label), []).append(read_json(paths[clip_id]))
    order = sorted(sums, key=lambda name: (EMOTIONS.index(name) if name in EMOTIONS else 99, name))
    groups = {name: sums[name] for name in order}
    if len(groups) > 1:
        groups["all"] = [item for items in sums.values() for item in items]
    rows: list[Row] = []
    for label, items in groups.items():
        frames, total = sum(i.get("frames", 0) for i in items), np.zeros(len(classes))
        for item in items:
            total += item.get("sums", 0)
        used = sum(1 for i in items if i.get("frames"))
        shares = total / frames if frames else np.full(len(total), np.nan)
        rows.append((label, len(items), used, frames, *(float(x) if frames else None for x in shares)))
    head = ("label", "clips", "with a face", "frames", *classes)
    markdown = _text(
        "# Emotion proportion",
        f"What {judge.name} sees in the clips of {', '.join(sorted(set(table['dataset'])))} (split: {split}): the mean "
        "confidence of each class over all frames with a face, each scaled to 256x256, in percent.",
        "CEM-Net's Fig. 2 gives by DeepFace 47.25% neutral for MEAD's neutral clips and 14.82% for LRS2; its detector, "
        "version and crop are not known.",
        _table(head, [(*r[:4], *(None if x is None else f"{100 * x:.2f}" for x in r[4:])) for r in rows]),
        f"Classifier: `{how}`. Data: `{shards.digest}`.",
    )
    return Report("emotion-proportion", markdown, head, tuple(rows), {
        "emotion-proportion": lambda: _stacked([(f"{r[0]} ({r[2]})", r[4:]) for r in rows], classes, judge.name)
    })  # fmt: skip


def clip_emotions(data: str, clip_id: str, classifier: str, path: str, files: ModelFiles) -> None:
    """Sums of a classifier's confidences over one clip's frames; runs in a worker's child."""
    import cv2

    frames = open_shards(data).frames(clip_id)
    if frames.shape[1:3] != (256, 256):
        frames = np.stack([cv2.resize(frame, (256, 256)) for frame in frames])
    try:
        rows = classifiers()[classifier].classify(Sample(frames, name=clip_id), files)
    except MissingWeights as error:
        raise ClipError(Reason.MISSING_WEIGHTS, str(error)) from None
    valid = rows[np.isfinite(rows).all(axis=1)].astype(np.float64)
    write_json(Path(path), {"frames": len(valid), "sums": valid.sum(axis=0).tolist()})


# From result rows ----------------------------------------------------------------------------------------------------


def identity_deterioration(results: Results) -> Report:
    """1 - cosine to the reference frames, mean over the pairs that change the emotion; from `csim:*-ref` rows."""
    frame = results.frame()
    frame = frame[
        frame["metric"].map(lambda key: _is(key, lambda metric: metric.name == "csim" and metric.needs_reference))
    ]
    frame = frame[frame["reference_emotion"].notna() & (frame["reference_emotion"] != frame["target_emotion"])]
    if frame.empty:
        raise UserError(
            "no rows of csim:dlib-ref or csim:aligned-ref for pairs that change the emotion; score with them"
        )
    rows: list[Row] = []
    for key, signature, part, expected in _tables(frame):
        for (method, revision), use, compared in _compared(part, expected):
            values = use["value"].to_numpy(float)
            mean, interval = mean_interval(1 - values, use["speaker"].to_numpy()) if len(values) else (None, None)
            low, high = (interval.low, interval.high) if interval else (None, None)
            rows.append((key["setting"], method, revision, part["metric"].iloc[0], mean, low, high, len(use), expected,
                         compared, signature, key["pairs_digest"]))  # fmt: skip
    head = ("setting", "method", "revision", "metric", "deterioration", "low", "high", "n", "expected", "compared",
            "signature", "pairs_digest")  # fmt: skip
    markdown = _text(
        "# Identity deterioration",
        "1 - cosine of the generated frames to the reference frames, mean over pairs whose reference shows another "
        "emotion than was asked for; 95% interval as on the boards. Lower is better; a held reference frame has about "
        "0, and the ground truth shows how much another expression of the same person costs by itself.",
        "CEM-Net's Table I gives, by ArcFace, Interface 0.19, MyStyle 0.21, EmoStyle 0.12; which weights, alignment "
        "and data are not given. Only numbers of one signature compare.",
        _table(head[:10], [r[:10] for r in rows]),
        *(f"- {m}: `{s}`" for m, s in sorted({(r[3], r[10]) for r in rows})),
    )
    bars = [(f"{r[1]}, {r[0]}, {r[3]}", r[4], r[5], r[6]) for r in rows if r[4] is not None]
    return Report("identity-deterioration", markdown, head, tuple(rows),
                  {"identity-deterioration": lambda: _bars(bars, "1 - cosine to the reference")})  # fmt: skip


def confusion_tables(results: Results) -> Report:
    """Accuracy by class and the confusion matrix of every method under every `ea` signature, from the rows' stats."""
    frame = results.frame()
    frame = frame[frame["metric"].map(lambda key: _is(key, lambda metric: metric.counts_predictions))]
    if frame["value"].notna().sum() == 0:
        raise UserError("no values of an ea metric in the result rows; score with one, ea:fer say")
    rows: list[Row] = []
    parts = ["# Emotion accuracy by class", "Rows: the emotion asked for. Columns: share of what was said, in percent. "
             "Methods are compared on the pairs that all of them have a value for, as on the boards."]  # fmt: skip
    plots: dict[str, Callable[[], Any]] = {}
    for key, signature, part, expected in _tables(frame):
        metric = str(part["metric"].iloc[0])
        parts.append(f"## {key['setting']}, {metric}")
        matrices: list[tuple[str, dict[str, dict[str, float]]]] = []
        for (method, revision), use, compared in _compared(part, expected):
            taken = pc.take(results.table["stats"], use.index.to_numpy()).to_pylist()
            sums: dict[str, float] = {}
            for stats in taken:
                for name, value in stats:
                    sums[name] = sums.get(name, 0.0) + value
            matrix, classes = confusion(sums), by_class(sums)
            meant = sorted(matrix, key=_emotion_order)
            said = sorted({name for row in matrix.values() for name in row}, key=_emotion_order)
            note = "" if compared else ", too few to be compared"
            parts.append(f"### {method} @ {revision} ({len(use)} of {expected}{note})")
            lines = [(m, f"{classes[m][1]:g}", f"{100 * classes[m][0]:.1f}",
                      *(f"{100 * matrix[m].get(s, 0) / classes[m][1]:.1f}" for s in said)) for m in meant]  # fmt: skip
            right = sum(matrix[m].get(m, 0.0) for m in meant)
            clips = sum(classes[m][1] for m in meant)
            lines.append(("all", f"{clips:g}", f"{100 * right / clips:.1f}" if clips else "–", *("" for _ in said)))
            parts.append(_table(("asked for", "clips", "right", *said), lines))
            rows += [(key["setting"], method, revision, metric, m, s, matrix[m].get(s, 0.0), classes[m][1], compared,
                      signature, key["pairs_digest"]) for m in meant for s in said]  # fmt: skip
            matrices.append((method, matrix))
        parts.append(f"Signature: `{signature}`.")
        stem = f"confusion-{key['setting']}-{metric.replace(':', '-')}-{digest([key, signature], 6)}"
        plots[stem] = partial(_heat, matrices, f"{metric}, {key['setting']}")
    head = ("setting", "method", "revision", "metric", "asked_for", "said", "clips", "clips_asked_for", "compared",
            "signature", "pairs_digest")  # fmt: skip
    return Report("confusion", _text(*parts), head, tuple(rows), plots)


def _is(key: str, condition: Callable[[Metric], bool]) -> bool:
    """Whether the record of a result row's metric fulfils the condition."""
    record = find_record(key)
    return record is not None and condition(record)


def _tables(frame: pd.DataFrame) -> Iterator[tuple[dict[str, str], str, pd.DataFrame, int]]:
    """Rows that may be compared: (table key, signature, rows, pairs expected)."""
    expected = frame.groupby(list(TABLE_KEYS), dropna=False)["pair_id"].nunique()
    for values, part in frame.groupby([*TABLE_KEYS, "signature"], sort=True, dropna=False):
        key = dict(zip(TABLE_KEYS, map(str, values), strict=False))
        yield key, str(values[-1]), part, int(expected.loc[values[:-1]])


def _compared(part: pd.DataFrame, expected: int) -> Iterator[tuple[tuple[str, str], pd.DataFrame, bool]]:
    """(method and revision, its rows with a value on the common pairs, whether it is compared)."""
    have = part[part["value"].notna()]
    groups = {str(i): (name, have.loc[rows.index.intersection(have.index)])
              for i, (name, rows) in enumerate(part.groupby(["method", "revision"], sort=True))}  # fmt: skip
    compared, shared = common_pairs({i: frozenset(rows["pair_id"]) for i, (_, rows) in groups.items()}, expected)
    for i, (name, rows) in groups.items():
        yield name, rows[rows["pair_id"].isin(shared)] if i in compared else rows, i in compared


# FID over a set ------------------------------------------------------------------------------------------------------


def dataset_fid(
    run: Path, data: Path, *, workers: int = 2, quiet: bool = False, files: ModelFiles | None = None
) -> Report:
    """`fid:dataset` of every method in every setting of a run: the frames of all its videos against those of their
    ground truths. Each pair brings its ground truth, so a clip that several pairs share counts several times on both
    sides. The features of each video and clip are kept below RUN/features: 8 kB a frame.

    Raises MissingWeights.
    """
    from talking_face.pretrained import inception
    from talking_face.pretrained.store import weight_path

    files = files or ModelFiles.from_environment()
    weight_path(inception.NAME, files)
    shards, signature = ShardSet(data), str(DatasetFid(files).signature())
    lists = [read_pairs(path) for path in sorted((run / "pairs").glob("*.parquet"))]
    if not lists:
        raise UserError(f"no pair lists in {run / 'pairs'}; give the folder of a cmet-eval run")
    tasks: dict[str, tuple[Any, ...]] = {}

    def features(kind: str, place: str, what: Sequence[str]) -> Path:
        key = digest([kind, *what, signature], 32)
        path = run / "features" / key[:2] / f"{key}.npy"
        if not path.exists():
            tasks[key] = (kind, str(data), place, str(path), files)
        return path

    sets: list[tuple[str, str, int, dict[str, dict[str, tuple[Path, Path]]]]] = []
    for pair_list in lists:
        if pair_list.data_digest != shards.digest:
            raise UserError(f"the pairs of {pair_list.setting} were drawn from other data than {data}")
        pairs = [pair for pair in pair_list.pairs if pair.ground_truth_clip is not None]
        found: dict[str, dict[str, tuple[Path, Path]]] = {}
        for folder in sorted(run.glob(f"videos/*/{pair_list.setting}")):
            for pair in pairs:
                video = folder / f"{pair_file_name(pair.pair_id)}.mp4"
                if video.exists():
                    clip = str(pair.ground_truth_clip)
                    both = (features("video", str(video), [sha256_of(video)]),
                            features("clip", clip, [shards.digest, clip]))  # fmt: skip
                    found.setdefault(folder.parent.name, {})[pair.pair_id] = both
        if found:
            sets.append((pair_list.setting, pair_list.digest, len(pairs), found))
    _work("cmet_eval.reports.reports:video_features", tasks, workers, "features", quiet)

    rows: list[Row] = []
    for setting, pairs_digest, expected, found in sets:
        there = {m: {p: b for p, b in by.items() if b[0].exists() and b[1].exists()} for m, by in found.items()}
        compared, shared = common_pairs({m: frozenset(by) for m, by in there.items()}, expected)
        for method, by in there.items():
            use = sorted(shared if method in compared else by)
            value, frames, real_frames = None, 0, 0
            if use:
                sides = [_pooled([by[pair][side] for pair in use]) for side in (0, 1)]
                frames, real_frames = (side.n for side in sides)
                value = DatasetFid().value(*sides)
            rows.append((setting, method, value, len(use), expected, frames, real_frames, method in compared, signature,
                         pairs_digest))  # fmt: skip
    head = ("setting", "method", "fid", "n", "expected", "frames", "real_frames", "compared", "signature",
            "pairs_digest")  # fmt: skip
    markdown = _text(
        "# FID over a set",
        "Frames of all videos against the frames of all their ground truths, pooled. Methods are compared on the pairs "
        "that all of them have. Biased upwards, the more the fewer frames: under 10,000 a side it compares with "
        "nothing outside this table. It has no interval: leaving out a speaker would take 10 s each and change "
        "the bias.",
        _table(head[:8], [r[:8] for r in rows]),
        f"Signature: `{signature}`. Data: `{shards.digest}`.",
    )
    return Report("fid", markdown, head, tuple(rows))


def video_features(kind: str, data: str, place: str, path: str, files: ModelFiles) -> None:
    """Inception features (T, 2048) of one video or clip, saved by an atomic rename; runs in a worker's child."""
    from cmet_metrics.fid import inception_features

    frames = open_shards(data).frames(place) if kind == "clip" else read_frames(Path(place), 25.0)
    found = inception_features(Sample(frames, name=Path(place).name), files)
    buffer = io.BytesIO()
    np.save(buffer, found.astype(np.float32), allow_pickle=False)
    _save(Path(path), buffer.getvalue())


def _pooled(paths: Sequence[Path]) -> FeatureSums:
    total = FeatureSums.of(np.load(paths[0], allow_pickle=False))
    for path in paths[1:]:
        total = total + FeatureSums.of(np.load(path, allow_pickle=False))
    return total


# AITV ----------------------------------------------------------------------------------------------------------------


def aitv(run: Path) -> Report:
    """Seconds a video, by method, setting and machine, from a run's generation records."""
    times = summarize(run / "records")
    if not times:
        raise UserError(f"no times in {run / 'records'}; they are kept where cmet-eval run generated the videos")
    rows = tuple((t.setting, t.method, t.revision, t.hardware, t.workers or None, t.n, t.frames, t.cmet, t.n_warm,
                  t.warm, t.warm_median, t.warm_per_frame) for t in times)  # fmt: skip
    head = ("setting", "method", "revision", "hardware", "side_by_side", "n", "frames", "cmet_s", "n_warm", "warm_s",
            "warm_median_s", "warm_s_per_frame")  # fmt: skip
    markdown = _text(
        "# AITV: seconds a video",
        "`cmet_s`: wall clock from the case to the frames, mean over all videos, writing the file left out, as C-MET "
        "states it. `warm_s`: without each process's first video (which loads the weights) and without reading the "
        "inputs from the shards; an accelerator is waited for. A method's own preprocessing is in both.",
        "Times compare only on one machine, alone on it: `side_by_side` processes share it. For a number to publish, "
        "run with --workers 1 --fresh.",
        _table(head, rows),
    )
    return Report("aitv", markdown, head, rows)


# Shared --------------------------------------------------------------------------------------------------------------


def _work(function: str, tasks: Mapping[str, tuple[Any, ...]], workers: int, label: str, quiet: bool) -> None:
    """Run them on worker processes; what fails is said, and its result stays absent. A missing weight ends it all."""
    failed = []
    with Progress(len(tasks), unit="clips", label=label, quiet=quiet) as progress:
        every = [Task(key, args, _DEADLINE_S) for key, args in tasks.items()]
        for result in run_tasks(function, every, workers=workers, progress=progress):
            if result.error is not None and result.error.reason is Reason.MISSING_WEIGHTS:
                raise UserError(result.error.detail)
            if result.error is not None:
                failed.append(f"{result.key}: {result.error}")
    if failed:
        print(f"{len(failed)} of {len(tasks)} failed, {failed[0]} for one")


def _save(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)


def _text(*parts: str) -> str:
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Sequence[Row]) -> str:
    def cell(value: Any) -> str:
        if value is None:
            return "–"
        return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")

    lines = [head, ["---"] * len(head), *([cell(v) for v in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _emotion_order(name: str) -> tuple[int, str]:
    return (EMOTIONS.index(name) if name in EMOTIONS else len(EMOTIONS), name)


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _stacked(rows: Sequence[tuple[str, Sequence[float | None]]], classes: Sequence[str], name: str) -> Any:
    """One horizontal bar a label, divided by class."""
    from matplotlib import colormaps

    figure = _figure(9, 1.2 + 0.42 * len(rows))
    axes = figure.subplots()
    left = np.zeros(len(rows))
    y = np.arange(len(rows))[::-1]
    for i, title in enumerate(classes):
        width = 100 * np.array([row[1][i] or 0.0 for row in rows], float)
        axes.barh(y, width, left=left, label=title, color=colormaps["Set2"](i), edgecolor="white", linewidth=0.6)
        for at, start, wide in zip(y, left, width, strict=True):
            if wide >= 4:
                axes.text(start + wide / 2, at, f"{wide:.0f}", ha="center", va="center", fontsize=8)
        left += width
    axes.set_yticks(y, [row[0] for row in rows])
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"mean confidence of {name}, % (label: clips)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(classes), frameon=False, fontsize=8)
    return figure


def _bars(rows: Sequence[tuple[str, float, float | None, float | None]], label: str) -> Any:
    """One horizontal bar a row, with its interval."""
    figure = _figure(9, 0.8 + 0.36 * len(rows))
    axes = figure.subplots()
    y = np.arange(len(rows))[::-1]
    axes.barh(y, [row[1] for row in rows], color="#7c9cbf", height=0.6)
    for at, (_, _, low, high) in zip(y, rows, strict=True):
        if low is not None and high is not None:
            axes.plot([low, high], [at, at], color="black", linewidth=1.2)
    axes.set_yticks(y, [row[0] for row in rows])
    axes.set_xlabel(f"{label}, 95% interval")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _heat(matrices: Sequence[tuple[str, Mapping[str, Mapping[str, float]]]], title: str) -> Any:
    """Confusion matrices side by side, rows scaled to 100%; the right answer is framed."""
    from matplotlib.patches import Rectangle

    meant = sorted({m for _, matrix in matrices for m in matrix}, key=_emotion_order)
    said = sorted({s for _, matrix in matrices for row in matrix.values() for s in row}, key=_emotion_order)
    figure = _figure(1.6 + len(matrices) * (0.5 * len(said) + 0.3), 1.5 + 0.42 * len(meant))
    for n, (axes, (method, matrix)) in enumerate(
        zip(np.atleast_1d(figure.subplots(1, len(matrices), sharey=True)), matrices, strict=True)
    ):
        share = np.full((len(meant), len(said)), np.nan)
        for i, m in enumerate(meant):
            total = sum(matrix.get(m, {}).values())
            if total:
                share[i] = [100 * matrix[m].get(s, 0.0) / total for s in said]
        axes.imshow(share, cmap="Blues", vmin=0, vmax=100, aspect="auto")
        for i, j in np.ndindex(share.shape):
            if np.isfinite(share[i, j]):
                colour = "white" if share[i, j] > 60 else "black"
                axes.text(j, i, f"{share[i, j]:.0f}", ha="center", va="center", fontsize=8, color=colour)
            if meant[i] == said[j]:
                axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="#c44", linewidth=1.2))
        axes.set_title(method, fontsize=9)
        axes.set_xticks(range(len(said)), said, rotation=60, ha="right", fontsize=8)
        if n == 0:
            axes.set_yticks(range(len(meant)), meant, fontsize=8)
            axes.set_ylabel("asked for")
        axes.set_xlabel("said")
    figure.suptitle(f"{title}, % of clips", fontsize=10)
    return figure
