"""Measures one case in a worker's child process: reads the files, applies the rules, and scores with every metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from cmet_eval.measuring.cases import Case
from cmet_eval.measuring.score_records import StoredScore, VideoScores, current_scores, write_record
from cmet_eval.measuring.scoring import REMEDIES, default_deadline, score_compared, stored_score
from cmet_eval.measuring.treatment import Treatment, cropped, paired, read_clip, read_track, with_spare_sound
from cmet_metrics.base import Metric, Sample, Score
from cmet_metrics.registry import get_metric
from talking_face.execution.stage import allow_seconds
from talking_face.files import sha256_of, unchanged
from talking_face.media import AUDIO_RATE, Limits, probe, read_video
from talking_face.names import storable
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import ClipError, Reason
from talking_face.signature import digest

MAX_VIDEO_BYTES = 8 << 30  # of one file; 10 s at 1920x1080 px without compression take 1.6 GB
_FRAME_BYTES = 4 << 30  # of the decoded frames of one video; 10 s at 1920x1080 px and 25 frames/s take 1.6 GB
# What the user can type if two files do not fit.
_REMEDIES = {
    **REMEDIES,
    Reason.RATE_MISMATCH: "--rate 25 takes the nearest frames at 25 frames/s",
    Reason.NO_AUDIO: "--audio FILE names the sound",
}
_RULES = (Reason.SIZE_MISMATCH, Reason.LENGTH_MISMATCH, Reason.RATE_MISMATCH)  # reasons that come from the treatment


@dataclass(frozen=True)
class MeasureJob:
    """One case to measure.

    Attributes:
        case: the files and labels.
        metrics: keys of the metrics.
        rules: the treatment of the files.
        store: folder of stored scores, or None to store nothing.
        suite: version of the suite.
        protocol: name of the protocol that set the rules; "" without protocol.
    """

    case: Case
    metrics: tuple[str, ...]
    rules: Treatment
    store: Path | None
    suite: str
    protocol: str = ""

    @property
    def remedies(self) -> Mapping[Reason, str]:
        """What the user can type for a reason."""
        if not self.protocol:
            return _REMEDIES
        return _REMEDIES | dict.fromkeys(_RULES, f"the protocol {self.protocol} has no other rule for such videos")


def measure_case(job: MeasureJob, files: ModelFiles) -> VideoScores:
    """The scores of one case. Stored scores are returned again if no file and no rule has changed.

    Raises:
        ClipError: a file is absent, too large, or changes while it is read.
    """
    case = job.case
    assert case.pred is not None
    metrics = [get_metric(key, files) for key in job.metrics]
    hashes = {name: file_sha256(path) for name, path in _files(case).items()}
    key = _key(job, metrics, hashes)
    path = None if job.store is None else job.store / key[:2] / f"{key}.json"
    stored = None if path is None else current_scores(path, key)
    if stored is None:
        with unchanged(case.pred, hashes["pred"]):
            stored = _measured(job, metrics, files, key, hashes["pred"])
        if path is not None:
            write_record(path, stored)
    return stored


def _files(case: Case) -> dict[str, Path]:
    named = {"pred": case.pred, "target": case.target, "audio": case.audio, "reference": case.reference}
    return {name: path for name, path in named.items() if path is not None}


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, 64 hex digits. Raises ClipError: missing-file, too-large or unreadable.

    The size is limited because a sparse file of 1 TB takes 10 minutes to hash.
    """
    try:
        if path.stat().st_size > MAX_VIDEO_BYTES:
            raise ClipError(
                Reason.TOO_LARGE, f"{path.name} is larger than {MAX_VIDEO_BYTES >> 30} GB, which is what is taken"
            )
        return sha256_of(path)
    except FileNotFoundError:
        raise ClipError(Reason.MISSING_FILE, f"no file {path.name}") from None
    except OSError as error:
        raise ClipError(Reason.UNREADABLE, f"{path.name} cannot be read: {error.strerror}") from None


def _key(job: MeasureJob, metrics: Sequence[Metric], hashes: dict[str, str]) -> str:
    """Digest of everything that the scores of the case depend on."""
    signatures = sorted(job.rules.signature(metric) for metric in metrics)
    # Evaluators recognise their training clips by name, so that the name is a part of the key.
    names = [path.name for path in _files(job.case).values()]
    parts = [hashes, names, asdict(job.case.labels), asdict(job.rules), signatures, job.suite]
    return digest([*parts, job.protocol] if job.protocol else parts, 32)


def _measured(job: MeasureJob, metrics: Sequence[Metric], files: ModelFiles, key: str, sha256: str) -> VideoScores:
    case = job.case
    assert case.pred is not None
    notes: list[str] = []
    codec = ""
    try:
        info = probe(case.pred)
        if info.video is not None:
            codec = f"{info.video.codec}-{info.video.pix_fmt}"
            allow_seconds(default_deadline(max(info.video.n_frames, info.duration * info.video.fps)))
        scores = _scores(job, metrics, files, notes)
    except ClipError as error:
        scores = [stored_score(metric.key, Score.missing(error.reason, error.detail)) for metric in metrics]
    folders = tuple({path.parent for path in _files(case).values()})
    scores = [replace(score, detail=storable(score.detail, folders=folders)) for score in scores]
    return VideoScores(key, codec, [storable(note, folders=folders) for note in dict.fromkeys(notes)], sha256, scores)


def _scores(job: MeasureJob, metrics: Sequence[Metric], files: ModelFiles, notes: list[str]) -> list[StoredScore]:
    case, rules = job.case, job.rules
    assert case.pred is not None
    limits = Limits(frame_bytes=_FRAME_BYTES)
    need_sound = any(metric.needs_audio for metric in metrics)
    pred = read_clip(case.pred, rules.rate, notes, limits=limits, sound=need_sound)
    if need_sound and pred.audio is None:
        pred = _borrowed(pred, case, rules, notes)
    pred = replace(pred, labels=case.labels, reference=_reference(case, metrics, limits))
    if rules.size == "face-crop":
        pred = cropped(pred, files)
    compared: tuple[Sample, Sample] | ClipError
    try:
        compared = _compared(pred, case, metrics, rules, files, limits, notes)
    except ClipError as error:
        compared = error
    return [
        score_compared(metric, compared if metric.needs_target else (pred, None), job.remedies) for metric in metrics
    ]


def _compared(
    pred: Sample,
    case: Case,
    metrics: Sequence[Metric],
    rules: Treatment,
    files: ModelFiles,
    limits: Limits,
    notes: list[str],
) -> tuple[Sample, Sample]:
    """The samples of the video and of its ground truth that are compared. Raises ClipError if there are none."""
    if case.target is None or not any(metric.needs_target for metric in metrics):
        raise ClipError(Reason.NO_GROUND_TRUTH, "the video has no ground truth")
    seen: list[str] = []
    target = read_clip(case.target, rules.rate, seen, limits=limits, sound=False)
    notes += [f"ground truth: {note}" for note in seen]
    target = replace(target, name=f"ground truth {target.name}")  # often both files have the same name
    if rules.size == "face-crop":
        target = cropped(target, files)
    return paired(pred, target, rules)


def _borrowed(pred: Sample, case: Case, rules: Treatment, notes: list[str]) -> Sample:
    """The sample with the sound of the ground truth, or else of the case's sound file; a note states which."""
    for path, start, origin in ((case.target, rules.start, "ground truth"), (case.audio, 0, "file of --audio")):
        if path is None:
            continue
        try:
            sound = read_track(path, rules.rate)
        except ClipError as error:
            if error.reason is Reason.NO_AUDIO:
                continue
            raise
        first = round(start / pred.fps * AUDIO_RATE)
        return with_spare_sound(pred, replace(sound, samples=sound.samples[first:]), origin, notes)
    return pred


def _reference(case: Case, metrics: Sequence[Metric], limits: Limits) -> Sample | None:
    if case.reference is None or not any(metric.needs_reference for metric in metrics):
        return None
    video = read_video(case.reference, None, limits)
    return Sample(np.ascontiguousarray(video.frames), fps=video.fps, name=case.reference.name)
