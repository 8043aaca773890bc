"""Defines `cmet_eval.measure`, which measures video files from Python."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import get_args, get_type_hints

from cmet_eval.measuring import saving
from cmet_eval.measuring.measure import Given, measure_files, plan
from cmet_eval.measuring.result import Measured
from cmet_eval.measuring.treatment import LengthRule, RateRule, SizeRule, Treatment
from cmet_metrics.registry import Profile
from talking_face.execution.options import RunOptions
from talking_face.names import did_you_mean
from talking_face.reasons import UserError


# long: each option of the command is an argument
def measure(
    pred: str | PathLike[str],
    target: str | PathLike[str] | None = None,
    *,
    metrics: Sequence[str] | None = None,
    profile: Profile | None = None,
    protocol: str | PathLike[str] | None = None,
    rate: RateRule | None = None,
    size: SizeRule | None = None,
    length: LengthRule | None = None,
    start: int | None = None,
    audio: str | PathLike[str] | None = None,
    name: str | None = None,
    revision: str = "unversioned",
    out: str | PathLike[str] | None = None,
    workers: int = 2,
    quiet: bool = True,
) -> Measured:
    """Measures videos against real videos, or videos alone.

    Args:
        pred: a video, a folder of videos, or a .csv file with the columns pred, target, audio, emotion, reference and
            speaker, of which only pred is required.
        target: the real video, or the folder of real videos. Files of two folders are matched by their path in the
            folder, without suffix.
        metrics: keys of metrics, such as `psnr` or `ssim:skimage`. None: all metrics that need no other weights than
            the installed ones, and less than a second for a video.
        profile: all metrics of the profile `embedded` or `paper`; not together with `metrics`.
        rate, size, length, start: how files that differ are made comparable; see
            `cmet_eval.measuring.treatment.Treatment`. By default nothing is changed, and what does not fit has a reason
            in place of a value.
        protocol: name of a protocol, such as `eat`, or path of a .toml file. It sets metrics, rate, size, length and
            start; these arguments must then be left out. `cmet-eval protocols` lists the names.
        audio: sound for videos without sound, if the real video has none either: a file, or a folder.
        name, revision: name and version of the method in the rows.
        out: a folder that keeps scores, result rows and the board. None: nothing is stored.
        workers: number of worker processes. 0: everything runs in this process, without limits of time and memory.
        quiet: whether no progress is printed.

    Returns:
        the result; see `Measured`: `.table`, `.per_clip`, `.rows`, `.as_dict()`, `.to_markdown()`, `.to_latex()`.

    Raises:
        UserError: a path, a name or an option is wrong. A fault of one video is a row with a reason, and no error.

    Example:
        result = cmet_eval.measure("mine/", "real/", metrics=["psnr", "ssim"])
        result.as_dict()
    """
    if isinstance(metrics, str):
        raise UserError(f"metrics is a list of keys: [{metrics!r}]")
    _check(rate, size, length, start)
    given = Given(metrics, profile, rate, size, length, start)
    request = given.request(None if protocol is None else str(protocol), name, revision)
    folder = None if out is None else Path(out)
    places = Path(pred), None if target is None else Path(target), None if audio is None else Path(audio)
    if folder is not None:
        saving.check(folder, *places[:2])
    result = measure_files(plan(*places, request=request), out=folder, options=RunOptions(workers, quiet=quiet))
    if folder is not None:
        saving.save(result, folder)
    return result


def _check(rate: RateRule | None, size: SizeRule | None, length: LengthRule | None, start: int | None) -> None:
    """Raises UserError for a wrong value, because Python does not check annotations."""
    given = {"rate": rate, "size": size, "length": length}
    for option, value in given.items():
        known = get_args(get_type_hints(Treatment)[option])
        if value is not None and value not in known:
            raise UserError(
                f"{option}={value!r}{did_you_mean(str(value), known)}; known: {', '.join(map(repr, known))}"
            )
    if start is not None and (not isinstance(start, int) or start < 0):
        raise UserError(f"start={start!r} is not the index of a frame: 0, 1, 2 and so on")
