"""Calibrates metrics: checks whether each metric reacts to known damage as its facts state.

Clips are degraded in known steps (degradations.py), and every metric is computed on each degraded clip. The same input
gives the same bytes. The results are:

    values.csv    the value or the reason for each metric, degradation, step and clip
    bands.csv     the noise band for each metric, signature and source
    noise.csv     the change of each metric by each kind of noise
    tables.md     tables of the noise bands and the changes
    METRIC.png    one plot per metric
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cmet_eval.calibration.answers import Answer, read_values, write_csv, write_values
from cmet_eval.calibration.clips import pick_clips, pick_sounds
from cmet_eval.calibration.measure import calibrate, evaluators_first, shifted_sound
from cmet_eval.calibration.noise import bands, noise_table
from cmet_eval.calibration.plot import plot
from cmet_eval.calibration.tables import tables
from cmet_metrics.base import Metric
from cmet_metrics.registry import METRICS, get_metric
from talking_face.files import write_text
from talking_face.pretrained import trained_evaluators
from talking_face.pretrained.model_files import ModelFiles
from talking_face.progress import Progress
from talking_face.reasons import UserError

# These metrics need no download, because their model files are in packages, and they are fast: 1 to 2 s per video of 50
# frames.
DEFAULT_METRICS: tuple[str, ...] = (
    *("psnr:frame-mean", "ssim:wang2004", "m_lmd:eat-mp", "m_lmd:native-mp", "f_lmd:native-mp"),
    *("registration:shift", "registration:scale", "registration:rotation", "jitter:output"),
    *("lip_energy:correlation", "lip_energy:offset", "csim:dlib", "ea:fer", "emotion_leak:fer"),
)
# These metrics are also computed if the user gives evaluators that were trained on a corpus.
CORPUS_METRICS: tuple[str, ...] = tuple(metric.key for metric in METRICS if metric.evaluator is not None)


@dataclass(frozen=True)
class Extent:
    """How many clips and frames of each shard set are used."""

    clips: int = 4  # number of clips that are degraded in every way
    frames: int = 50  # number of frames per clip
    sounds: int = 0  # number of further clips of which only the sound is shifted


def run(
    data: Sequence[Path],
    out: Path,
    extent: Extent | None = None,
    *,
    metric_keys: Sequence[str] = (),
    evaluators: Sequence[Path] = (),
    quiet: bool = False,
    files: ModelFiles | None = None,
) -> list[Path]:
    """Calibrates the metrics on clips of each shard set in `data`; writes the results into `out`; returns the paths.

    Args:
        metric_keys: `name:variant`; empty: the default metrics.
        evaluators: folders of evaluators trained on a corpus. The metrics use the evaluators in the first folder. The
            evaluators in the other folders were trained with other seeds. Their values differ by training noise.
        files: folders with the metrics' model files; None: the folders in the environment variables.
    """
    extent, files = extent or Extent(), files or ModelFiles.from_environment()
    keys = metric_keys or (*DEFAULT_METRICS, *(CORPUS_METRICS if evaluators else ()))
    metrics = [get_metric(key, evaluators_first(evaluators[:1], files)) for key in keys]
    answers: list[Answer] = []
    total = (extent.clips + extent.sounds) * len(data)
    with Progress(total, "clips", "calibrate", quiet=quiet) as progress:
        seen = _training_clips(evaluators)
        picked = [pick_clips(folder, extent.clips, extent.frames, seen) for folder in data]
        # One clip of each shard set, then the next clip of each: a stopped calibration has values of every set.
        for clip in (some[k] for k in range(extent.clips) for some in picked if k < len(some)):
            answers += calibrate([clip], metrics, other_evaluators=evaluators[1:])
            write_values(out, answers)
            progress.advance()
        for folder in data if extent.sounds else ():
            for clip in pick_sounds(folder, extent.sounds, extent.frames, seen):
                answers += shifted_sound([clip], metrics)
                progress.advance()
            write_values(out, answers)
    # The tables are computed from the rounded values in values.csv. So a later call of `again` gives the same tables.
    return again([out / "values.csv"], out, evaluators, files)


def _training_clips(evaluators: Sequence[Path]) -> frozenset[str]:
    """Ids of all clips on which one or more of the evaluators were trained."""
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
    """Computes bands, tables and plots from the values.csv of one or more earlier calibrations.

    The values.csv of a stopped calibration can be used too. `evaluators` are used only for the metrics' signatures,
    which contain the hashes of the evaluators.
    """
    answers = [answer for path in values for answer in read_values(path)]
    if not answers:
        raise UserError(f"{', '.join(map(str, values))} holds no values")
    files = evaluators_first(evaluators[:1], files or ModelFiles.from_environment())
    return write(
        out, answers, [get_metric(key, files, imports=False) for key in dict.fromkeys(a.metric for a in answers)]
    )


def write(out: Path, answers: Sequence[Answer], metrics: Sequence[Metric]) -> list[Path]:
    """Writes values.csv, bands.csv, noise.csv, tables.md and the plots into the folder `out`."""
    paths = [
        write_values(out, answers),
        write_csv(out / "bands.csv", bands(answers, metrics)),
        write_csv(out / "noise.csv", noise_table(answers, metrics)),
        out / "tables.md",
    ]
    write_text(out / "tables.md", tables(answers, metrics))
    for metric in metrics:
        if any(a.metric == metric.key and a.value is not None for a in answers):
            paths.append(plot(out / f"{metric.key.replace(':', '-')}.png", answers, metric))
    return paths
