"""Report: the predictions of an emotion classifier for the clips of a data set, by label (CEM-Net, Fig. 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from cmet_eval.measuring.scoring import default_deadline
from cmet_eval.reports.report import Line, Report, new_figure, table, text, work_on_clips
from cmet_eval.runs.generate import open_shards
from cmet_leaderboards.digits import fixed
from cmet_metrics.base import Sample
from cmet_metrics.classifiers import CLASSIFIERS, Classifier
from cmet_pipelines.shards import ShardSet
from talking_face.emotions import EMOTIONS
from talking_face.execution.options import RunOptions
from talking_face.execution.stage import allow_seconds
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import MissingWeights
from talking_face.reasons import ClipError, Reason, UserError
from talking_face.sealed import Damaged, discard, read_sealed_json, write_sealed_json
from talking_face.signature import digest
from talking_face.user_files import WrongValue, checked

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIZE = 256  # px; every frame is scaled to this size


class Selection(NamedTuple):
    """The clips of the data set that are classified."""

    split: str = "all"  # clips with this value in the column `split`; "all": every clip
    per_label: int | None = None  # largest number of clips per label, spread evenly over the label's clips; None: all


class _Sums(NamedTuple):
    """The sums of a classifier's confidences over the frames of one clip."""

    frames: int  # number of frames with a face
    sums: np.ndarray  # (classes,) sum of the confidences over the frames with a face


class _Stored(BaseModel):
    """The form of `_Sums` in a file."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    frames: int = Field(ge=0)
    sums: list[Annotated[float, Field(ge=0)]]


def classifiers() -> dict[str, Classifier]:
    """Name -> classifier. Classifiers that have to be trained on a corpus first are left out."""
    return {classifier.name: classifier for classifier in CLASSIFIERS.values() if classifier.evaluator is None}


def emotion_proportion(
    data: Path,
    classifier: str,
    out: Path,
    selection: Selection | None = None,
    options: RunOptions | None = None,
    files: ModelFiles | None = None,
) -> Report:
    """Mean confidence of each class of a classifier, for each label of the clips, over all frames with a face.

    Args:
        data: folder of the shard set.
        classifier: a name in `classifiers`.
        out: the sums of each clip are stored in the folder `out`/emotion-proportion, and the next call uses them.
        selection: which clips are classified; None: all clips.
        options: worker processes, and whether progress is printed.
        files: folders of the classifier's files; None: the folders in the environment variables.
    """
    selection, options = selection or Selection(), options or RunOptions()
    if classifier not in classifiers():
        raise UserError(f"no classifier {classifier!r}; there are {', '.join(classifiers())}")
    judge, shards, files = classifiers()[classifier], ShardSet(data), files or ModelFiles.from_environment()
    classes = judge.labels(files)
    how = "|".join(f"{k}:{v}" for k, v in {"net": judge.name, **judge.settings(files), "resize": str(_SIZE)}.items())
    clips = shards.clips if selection.split == "all" else shards.clips[shards.clips["split"] == selection.split]
    label_of = _labels(clips, selection.per_label)
    if not label_of:
        raise UserError(f"{data} has no clip in split {selection.split!r}")
    paths = {clip: _path(out, digest([shards.digest, clip, how], 32)) for clip in label_of}
    absent = {
        clip: (str(data), clip, classifier, str(path), files)
        for clip, path in paths.items()
        if _read_sums(path, len(classes)) is None
    }
    work_on_clips("cmet_eval.reports.emotion_proportion:clip_emotions", absent, "classify", options)

    nothing = _Sums(0, np.zeros(len(classes)))
    rows = _rows(label_of, {clip: _read_sums(path, len(classes)) or nothing for clip, path in paths.items()})
    names = ", ".join(sorted(set(clips["dataset"])))
    head = ("label", "clips", "with a face", "frames", *classes)
    markdown = text(
        "# Emotion proportion",
        f"What {judge.name} sees in the clips of {names} (split: {selection.split}): "
        "the mean confidence of each class over all frames with a face, each scaled to 256x256, in percent.",
        "CEM-Net's Fig. 2 gives by DeepFace 47.25% neutral for MEAD's neutral clips and 14.82% for LRS2; its detector, "
        "version and crop are not known.",
        table(head, [(*r[:4], *(None if x is None else fixed(100 * float(x), 2) for x in r[4:])) for r in rows]),
        f"Classifier: `{how}`. Data: `{shards.digest}`.",
    )
    plots = {"emotion-proportion": lambda: _stacked_bars(rows, classes, judge.name)}
    return Report("emotion-proportion", markdown, head, tuple(rows), plots)


def clip_emotions(data: str, clip_id: str, classifier: str, path: str, files: ModelFiles) -> None:
    """Writes the sums of a classifier's confidences over the frames of one clip; runs in a worker's child process."""
    import cv2

    frames = open_shards(data).frames(clip_id)
    allow_seconds(default_deadline(len(frames)))
    if frames.shape[1:3] != (_SIZE, _SIZE):
        frames = np.stack([cv2.resize(frame, (_SIZE, _SIZE)) for frame in frames])
    try:
        rows = classifiers()[classifier].classify(Sample(frames, name=clip_id), files)
    except MissingWeights as error:
        raise ClipError(Reason.MISSING_WEIGHTS, str(error)) from None
    valid = rows[np.isfinite(rows).all(axis=1)].astype(np.float64)
    write_sealed_json(Path(path), {"frames": len(valid), "sums": valid.sum(axis=0).tolist()})


def _path(out: Path, key: str) -> Path:
    return out / "emotion-proportion" / key[:2] / f"{key}.json"


def _read_sums(path: Path, n_classes: int) -> _Sums | None:
    """The sums of one clip; None if the file is absent or damaged. A damaged file is removed with a message."""
    remedy = "the report classifies the clip again"
    try:
        stored = checked(_Stored, read_sealed_json(path, remedy), path.name)
        if len(stored.sums) != n_classes:
            raise Damaged(path, f"it has no sums of {n_classes} classes", remedy)
    except WrongValue as error:
        discard(Damaged(path, str(error.problems[0]), remedy))
        return None
    except FileNotFoundError:
        return None
    except Damaged as error:
        discard(error)
        return None
    return _Sums(stored.frames, np.asarray(stored.sums, float))


def _labels(clips: pd.DataFrame, per_label: int | None) -> dict[str, str]:
    """clip_id of every selected clip -> its label, or "unlabelled"."""
    labels = clips["emotion"].where(clips["emotion"].notna(), "unlabelled")
    if per_label is not None:
        taken = []
        for _, group in labels.groupby(labels):
            spread = np.unique(np.linspace(0, len(group) - 1, min(per_label, len(group))).round())
            taken.append(group.index[spread.astype(int)])
        labels = labels.loc[np.concatenate(taken)] if taken else labels
    return {str(clip): str(label) for clip, label in zip(clips["clip_id"].loc[labels.index], labels, strict=True)}


def _rows(label_of: Mapping[str, str], sums_of: Mapping[str, _Sums]) -> list[Line]:
    """One row per label: (label, clips, clips with a face, frames, share of each class).

    If there are several labels, the last row is for the clips of all labels together.
    """
    sums: dict[str, list[_Sums]] = {}
    for clip, label in label_of.items():
        sums.setdefault(label, []).append(sums_of[clip])
    order = sorted(sums, key=lambda name: (EMOTIONS.index(name) if name in EMOTIONS else 99, name))
    groups = {name: sums[name] for name in order}
    if len(groups) > 1:
        groups["all"] = [item for items in sums.values() for item in items]
    return [_row(label, items) for label, items in groups.items()]


def _row(label: str, items: Sequence[_Sums]) -> Line:
    frames, total = sum(item.frames for item in items), np.zeros(len(items[0].sums))
    for item in items:
        total += item.sums
    used = sum(1 for item in items if item.frames)
    shares: list[float | None] = [float(x) for x in total / frames] if frames else [None] * len(total)
    return (label, len(items), used, frames, *shares)


def _stacked_bars(rows: Sequence[Line], classes: Sequence[str], name: str) -> Figure:
    """Draws one horizontal bar per label; the parts of the bar are the shares of the classes."""
    from matplotlib import colormaps

    figure = new_figure(9, 1.2 + 0.42 * len(rows))
    axes = figure.subplots()
    left = np.zeros(len(rows))
    y = np.arange(len(rows))[::-1]
    for i, title in enumerate(classes):
        width = 100 * np.array([row[4 + i] or 0.0 for row in rows], float)
        axes.barh(y, width, left=left, label=title, color=colormaps["Set2"](i), edgecolor="white", linewidth=0.6)
        for at, start, wide in zip(y, left, width, strict=True):
            if wide >= 4:
                axes.text(start + wide / 2, at, f"{wide:.0f}", ha="center", va="center", fontsize=8)
        left += width
    axes.set_yticks(y, [f"{row[0]} ({row[2]})" for row in rows])
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"mean confidence of {name}, % (label: clips)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(classes), frameon=False, fontsize=8)
    return figure
