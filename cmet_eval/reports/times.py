"""Report: AITV, the average inference time per video in seconds, by method, setting and machine."""

from __future__ import annotations

from pathlib import Path

from cmet_eval.reports.report import Line, Report, table, text
from cmet_eval.runs.timing import summarize
from talking_face.reasons import UserError

HEAD = (
    *("setting", "method", "revision", "hardware", "side_by_side", "n", "frames", "cmet_s", "n_warm", "warm_s"),
    *("warm_median_s", "warm_s_per_frame"),
)


def aitv(run: Path) -> Report:
    """The AITV of each method in each setting and on each machine, from the generation records of a run."""
    times = summarize(run / "records")
    if not times:
        raise UserError(f"no times in {run / 'records'}; they are kept where cmet-eval run generated the videos")
    rows = tuple[Line, ...](
        (
            *(t.setting, t.method, t.revision, t.hardware, t.workers or None, t.n, t.frames, t.cmet, t.n_warm),
            *(t.warm, t.warm_median, t.warm_per_frame),
        )
        for t in times
    )
    markdown = text(
        "# AITV: seconds a video",
        "`cmet_s`: wall clock from the case to the frames, mean over all videos, writing the file left out, as C-MET "
        "states it. `warm_s`: without each process's first video (which loads the weights) and without reading the "
        "inputs from the shards; an accelerator is waited for. A method's own preprocessing is in both.",
        "Times compare only on one machine, alone on it: `side_by_side` processes share it. For a number to publish, "
        "run with --workers 1 --fresh.",
        table(HEAD, rows),
    )
    return Report("aitv", markdown, HEAD, rows)
