"""Whether metrics measure what they claim: known degradations (degradations.py) of real and drawn clips, every metric's
answer to each, and the noise band inside which a difference between two methods says nothing.

Writes values.csv (metric, degradation, step, clip, value or reason), bands.csv (metric, signature, source -> band),
noise.csv (what each kind of noise does by itself), tables.md and a plot a metric. The same input gives the same bytes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cmet_eval.calibration.degradations import (
    DEGRADATIONS,
    NOISE,
    SAMPLES,
    Clip,
    Degradation,
    NotMakeable,
    Step,
    as_written,
    stand_in,
)
from cmet_eval.calibration.plot import plot
from cmet_eval.calibration.tables import (
    BASE,
    EVALUATOR,
    NO_STEP,
    NOT_MAKEABLE,
    SOUND_ONLY,
    STAND_IN,
    Row,
    bands,
    label,
    noise_table,
    read_values,
    tables,
    write_csv,
    write_values,
)
from cmet_metrics.base import Labels, Metric, Sample, Score
from cmet_metrics.landmarks import give_mesh, is_of_pictures, mediapipe_landmarks
from cmet_metrics.registry import METRICS, get_metric
from talking_face.media.reading import FPS
from talking_face.pretrained import trained_evaluators
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError

# Those whose files come with packages, and quick enough: 1 to 2 s a video of 50 frames.
DEFAULT_METRICS: tuple[str, ...] = (
    *("psnr:frame-mean", "ssim:wang2004", "m_lmd:eat-mp", "m_lmd:native-mp", "f_lmd:native-mp"),
    *("registration:shift", "registration:scale", "registration:rotation", "jitter:output"),
    *("lip_energy:correlation", "lip_energy:offset", "csim:dlib", "ea:fer", "emotion_leak:fer"),
)
# By evaluators trained on the corpus; asked where such are given.
CORPUS_METRICS: tuple[str, ...] = tuple(metric.key for metric in METRICS if metric.evaluator is not None)
_SEED = 0


def calibrate(
    clips: Iterable[Clip],
    metrics: Sequence[Metric],
    degradations: Sequence[Degradation] = DEGRADATIONS,
    noise: Sequence[Degradation] = NOISE,
    other_evaluators: Sequence[Path] = (),
) -> Iterable[Row]:
    """Every metric on every degradation of every clip.

    What is degraded is the clip as the suite writes videos, so that PSNR is finite; the target is the clip itself.

    Args:
        other_evaluators: folders of evaluators trained with other seeds; what they say of the stand-in is noise too.
    """
    for clip in clips:
        target = Sample(clip.frames, FPS, clip.audio, clip.name, clip.labels)
        written = replace(clip, frames=as_written(clip.frames))
        base = _sample(written, written.frames, written.audio)
        yield from _rows(written, BASE, NO_STEP, metrics, base, target)
        for how in degradations:
            yield from _degraded(written, how, how.name, metrics, base, target)
        if noise:
            spoiled = replace(written, frames=stand_in(written.frames))
            start = _sample(spoiled, spoiled.frames, spoiled.audio)
            yield from _rows(spoiled, STAND_IN, NO_STEP, metrics, start, target)
            for how in noise:
                yield from _degraded(spoiled, how, f"{STAND_IN}+{how.name}", metrics, start, target)
            trained = [metric for metric in metrics if metric.evaluator is not None]
            for folder in other_evaluators:
                seed = f"seed {trained_evaluators.find('syncnet', ModelFiles((folder,))).trained_on.seed}"
                others = [replace(metric, files=evaluators_first([folder], metric.files)) for metric in trained]
                yield from _rows(spoiled, f"{STAND_IN}+{EVALUATOR}", seed, others, start, target)


def evaluators_first(folders: Sequence[Path], files: ModelFiles) -> ModelFiles:
    """The same model files, with the evaluators of these folders before all others."""
    return replace(files, weights=(*folders, *files.weights))


def sound_moved(clips: Iterable[Clip], metrics: Sequence[Metric]) -> Iterable[Row]:
    """The offset that each metric finds as the sound is moved, pictures looked at once: cheap enough for many clips.

    The pictures are those of the shards, with the points that lie beside them where the clip has them.
    """
    how = next(how for how in DEGRADATIONS if how.sound_only)
    finding = [metric for metric in metrics if metric.measures_offset]
    for clip in clips:
        clip = replace(clip, group=clip.group + SOUND_ONLY)
        base = _sample(clip, clip.frames, clip.audio)
        if clip.mesh is not None:
            give_mesh(base, clip.mesh)
        yield from _rows(clip, BASE, NO_STEP, finding, base, base)
        yield from _degraded(clip, how, how.name, finding, base, base)


def _degraded(
    clip: Clip, how: Degradation, name: str, metrics: Sequence[Metric], base: Sample, target: Sample
) -> Iterable[Row]:
    for step in how.steps:
        asked = [m for m in metrics if _asked(m, how, step, noise=name != how.name)]
        try:
            video = how.apply(clip, step)
        except NotMakeable:
            yield from (Row(m.key, name, label(step), clip.group, clip.name, None, NOT_MAKEABLE, None) for m in asked)
            continue
        sample = _sample(clip, video.frames, video.audio)
        if how.sound_only and asked:
            mediapipe_landmarks(base, asked[0].files)
            sample.copy_cached(base, is_of_pictures)  # the pictures are the same
        yield from _rows(clip, name, label(step), asked, sample, target)


def _asked(metric: Metric, how: Degradation, step: Step, noise: bool) -> bool:
    if how.sound_only:
        return metric.needs_audio
    return noise or not metric.slow or step == how.steps[-1]


def _sample(clip: Clip, frames: np.ndarray, audio: np.ndarray) -> Sample:
    return Sample(frames, FPS, audio, clip.name, clip.labels)


def _rows(clip: Clip, name: str, step: str, metrics: Sequence[Metric], sample: Sample, target: Sample) -> Iterable[Row]:
    for metric in metrics:
        score: Score = metric.score(sample, target)
        reason = score.reason.value if score.reason else ""
        yield Row(metric.key, name, step, clip.group, clip.name, score.value, reason, score.stats.get("offset"))


# The clips ------------------------------------------------------------------------------------------------------------


def pick_clips(folder: Path, count: int, frames: int, seen: frozenset[str] = frozenset()) -> list[Clip]:
    """`count` clips of a shard set, two a speaker where there are two, of the highest intensity that the set has.

    The choice is drawn with a fixed seed. Clips are cut to `frames` frames. Those `seen`, on which an evaluator was
    trained, are left out.
    """
    from cmet_eval.calibration.redraw import other_emotion, other_speaker, redrawn
    from cmet_eval.runs.generate import open_shards
    from talking_face.emotions import EMOTIONS
    from talking_face.faces.points68 import to_68

    shards = open_shards(str(folder))
    table = shards.clips[shards.clips["n_frames"] >= min(frames, int(shards.clips["n_frames"].max()))]
    table = table[~table["clip_id"].isin(seen)]
    strong = table[(table["intensity"] == table["intensity"].max()) & (table["emotion"] != "neutral")]
    rows = list((strong if len(strong) else table).itertuples())
    rng = np.random.default_rng(_SEED)
    by_speaker: dict[Any, list[Any]] = defaultdict(list)
    for k in rng.permutation(len(rows)):
        by_speaker[rows[k].speaker].append(rows[k])
    chosen = [row for some in by_speaker.values() for row in some[:2]][:count]
    if not chosen:
        raise UserError(f"{folder} has no clip to calibrate on")
    out = []
    for row in sorted(chosen, key=lambda row: row.clip_id):
        pictures = shards.frames(row.clip_id)[:frames]
        emotion = row.emotion if row.emotion in EMOTIONS else None
        drawn = redrawn(row, pictures, shards.crop_transform(row.clip_id)[:frames]) if emotion else None
        clip = Clip(
            name=row.clip_id,
            group="embedded" if drawn else "real",
            frames=pictures,
            audio=shards.audio(row.clip_id)[: len(pictures) * SAMPLES],
            points=to_68(shards.landmarks(row.clip_id)[:frames]),
            labels=Labels(emotion, other_emotion(emotion) if emotion else None, row.speaker),
        )
        if drawn is not None and emotion is not None:
            clip = replace(
                clip,
                with_mouth=drawn.frames,
                with_other_face=partial(drawn.frames, speaker=other_speaker(row.speaker)),
                with_other_emotion=partial(drawn.frames, emotion=other_emotion(emotion)),
            )
        else:
            others = [other.clip_id for other in rows if other.speaker != row.speaker]
            if others:
                clip = replace(clip, with_other_face=partial(_frames_of, shards, sorted(others)[0], len(pictures)))
        out.append(clip)
    return out


def pick_sounds(folder: Path, count: int, frames: int, seen: frozenset[str] = frozenset()) -> list[Clip]:
    """`count` clips of a shard set for `sound_moved`, of any emotion and intensity; drawn by a fixed seed."""
    from cmet_eval.runs.generate import open_shards
    from embedded_corpus.identity import speaker_names
    from talking_face.faces.points68 import to_68

    shards = open_shards(str(folder))
    table = shards.clips[(shards.clips["valid_fraction"] >= 0.5) & ~shards.clips["clip_id"].isin(seen)]
    order = np.random.default_rng(_SEED).permutation(len(table))[:count]
    out = []
    for row in table.iloc[np.sort(order)].itertuples():
        pictures = shards.frames(row.clip_id)[:frames]
        points, blendshapes = shards.landmarks(row.clip_id)[:frames], shards.blendshapes(row.clip_id)[:frames]
        group = "embedded" if row.dataset == "mead" and row.speaker in speaker_names(16) else "real"
        sound = shards.audio(row.clip_id)[: len(pictures) * SAMPLES]
        out.append(Clip(row.clip_id, group, pictures, sound, to_68(points), mesh=(points, blendshapes)))
    return out


def _frames_of(shards: Any, clip_id: str, count: int) -> np.ndarray:
    """`count` frames of another clip; its last one is held where it is shorter."""
    frames = shards.frames(clip_id)
    return frames[np.minimum(np.arange(count), len(frames) - 1)]


def write(out: Path, rows: Sequence[Row], metrics: Sequence[Metric]) -> list[Path]:
    """values.csv, bands.csv, noise.csv, tables.md and the plots, in the folder `out`."""
    paths = [write_values(out, rows), write_csv(out / "bands.csv", bands(rows, metrics))]
    paths.append(write_csv(out / "noise.csv", noise_table(rows, metrics)))
    (out / "tables.md").write_text(tables(rows, metrics), encoding="utf-8")
    paths.append(out / "tables.md")
    for metric in metrics:
        if any(row.metric == metric.key and row.value is not None for row in rows):
            paths.append(plot(out / f"{metric.key.replace(':', '-')}.png", rows, metric))
    return paths


def run(
    data: Sequence[Path],
    out: Path,
    clips: int = 4,
    frames: int = 50,
    metric_keys: Sequence[str] = (),
    evaluators: Sequence[Path] = (),
    sounds: int = 0,
    quiet: bool = False,
    files: ModelFiles | None = None,
) -> list[Path]:
    """Calibrate on `clips` clips of each shard set and write into `out`.

    Args:
        evaluators: folders of evaluators trained on a corpus; the first judge, the others are its noise.
        sounds: so many clips more of each shard set, of which the sound alone is moved.
    """
    from talking_face.progress import Progress

    files = files or ModelFiles.from_environment()
    keys = metric_keys or (*DEFAULT_METRICS, *(CORPUS_METRICS if evaluators else ()))
    metrics = [get_metric(key, evaluators_first(evaluators[:1], files)) for key in keys]
    rows: list[Row] = []
    with Progress((clips + sounds) * len(data), "clips", "calibrate", quiet=quiet) as progress:
        seen = _trained_on(evaluators)
        picked = [pick_clips(folder, clips, frames, seen) for folder in data]
        # In turn, so that the values that are there after a stop are of every set.
        for clip in (some[k] for k in range(clips) for some in picked if k < len(some)):
            rows += calibrate([clip], metrics, other_evaluators=evaluators[1:])
            write_values(out, rows)
            progress.advance()
        for folder in data if sounds else ():
            for clip in pick_sounds(folder, sounds, frames, seen):
                rows += sound_moved([clip], metrics)
                progress.advance()
            write_values(out, rows)
    # From rounded values, as anybody gets them who starts from that file.
    return again([out / "values.csv"], out, evaluators, files)


def _trained_on(evaluators: Sequence[Path]) -> frozenset[str]:
    """Ids of all clips that any of them was trained on."""
    out: set[str] = set()
    for folder in evaluators:
        files = ModelFiles((folder,))
        out.update(
            clip for kind in trained_evaluators.FILES for clip in trained_evaluators.find(kind, files).trained_on.clips
        )
    return frozenset(out)


def again(
    values: Sequence[Path], out: Path, evaluators: Sequence[Path] = (), files: ModelFiles | None = None
) -> list[Path]:
    """Bands, tables and plots from the values.csv of earlier runs, also of one that was stopped, put together.

    The evaluators are asked for their hashes alone, which signatures hold.
    """
    rows: list[Row] = []
    for path in values:
        try:
            rows += read_values(path)
        except (OSError, KeyError, ValueError) as error:
            raise UserError(f"{path} is no values.csv of cmet-eval calibrate ({type(error).__name__})") from None
    files = evaluators_first(evaluators[:1], files or ModelFiles.from_environment())
    return write(out, rows, [get_metric(key, files) for key in dict.fromkeys(row.metric for row in rows)])
