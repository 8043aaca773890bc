"""Turn a dataset as it lies on disk into Parquet shards. Killed at any moment, the same command finishes the work."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from cmet_pipelines.frames_codec import LOSSLESS_CODEC
from cmet_pipelines.preprocess import PreprocessSummary
from cmet_pipelines.preprocess import preprocess as run
from cmet_pipelines.settings import PreprocessSettings
from talking_face.faces.align import ALIGN_MODES
from talking_face.reasons import UserError

DEFAULTS = PreprocessSettings()


def preprocess(
    dataset: Annotated[str, typer.Argument(help="The reader: mead, crema-d, lrs2, meld or clips.")],
    root: Annotated[Path, typer.Argument(help="Folder of the dataset; never changed.")],
    out: Annotated[Path, typer.Argument(help="Folder for the shards.")],
    workers: Annotated[int, typer.Option(min=0, help="Worker processes; 0: in this process, without deadlines.")] = 2,
    scheduler: Annotated[str | None, typer.Option(help="A running Dask scheduler, tcp://HOST:PORT.")] = None,
    split: Annotated[str, typer.Option(help="Named split by speaker, auto or none.")] = DEFAULTS.split,
    view: Annotated[str, typer.Option(help="Camera view, or all.")] = DEFAULTS.view,
    labels: Annotated[
        Path | None, typer.Option(help="clips: CSV of labels (else ROOT/labels.csv); meld: folder of its CSVs.")
    ] = None,
    numbering: Annotated[str | None, typer.Option(help="MEAD: cmet, cmet-release, or a CSV of sentences.")] = None,
    emotion_label: Annotated[str, typer.Option(help="CREMA-D: intended or voted.")] = DEFAULTS.emotion_label,
    subset: Annotated[str, typer.Option(help="LRS2: main, pretrain or all.")] = DEFAULTS.subset,
    defects: Annotated[bool, typer.Option(help="Leave out clips that are known to be bad.")] = DEFAULTS.defects,
    clips: Annotated[str | None, typer.Option(help="Take only these: a named list, or a CSV of clip_id.")] = None,
    align: Annotated[str, typer.Option(help=f"How the face is cut out: {', '.join(ALIGN_MODES)}.")] = DEFAULTS.align,
    size: Annotated[
        int | None, typer.Option(help=f"Side of the face crop, px; {DEFAULTS.size} where the mode has none of its own.")
    ] = None,
    codec: Annotated[str, typer.Option(help="Encoding of frames; docs/shards.md compares them.")] = DEFAULTS.codec,
    lossless: Annotated[bool, typer.Option("--lossless", help=f"Short for --codec {LOSSLESS_CODEC}.")] = False,
    require_audio: Annotated[bool, typer.Option(help="Drop clips without sound.")] = DEFAULTS.require_audio,
    deadline: Annotated[float, typer.Option(help="Seconds after which a clip is given up.")] = DEFAULTS.deadline_s,
    limit: Annotated[int | None, typer.Option(min=1, help="Take only the first N clips.")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try clips dropped by a deadline or crash again.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Take finished clips out of OUT that are not asked for now.")
    ] = False,
    allow_failures: Annotated[
        float, typer.Option(min=0, max=1, help="Share of clips that may drop before the exit code is 1.")
    ] = 0.05,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Reads DATASET under ROOT and writes shards, ledger and card into OUT."""
    started = time.monotonic()
    if lossless and codec not in (DEFAULTS.codec, LOSSLESS_CODEC):
        raise UserError(f"--lossless is --codec {LOSSLESS_CODEC}; leave out one of --lossless and --codec {codec}")
    try:
        settings = PreprocessSettings(
            align=align,
            **({} if size is None else {"size": size}),  # type: ignore[arg-type]
            codec=LOSSLESS_CODEC if lossless else codec,
            require_audio=require_audio,
            view=view,
            split=split,
            labels=labels,
            numbering=numbering,
            emotion_label=emotion_label,  # type: ignore[arg-type]
            subset=subset,  # type: ignore[arg-type]
            defects=defects,
            clips=clips,
            deadline_s=deadline,
        )
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).removesuffix("_s").replace("_", "-")
        raise UserError(f"--{option}: {first['msg'].removeprefix('Value error, ')}") from None
    how: dict[str, Any] = {"workers": workers, "scheduler": scheduler, "limit": limit, "quiet": quiet}
    summary = run(dataset, root, out, settings, retry=retry, prune=prune, **how)
    if not quiet:
        for note in summary.notes:
            print(note)
    _report(summary, time.monotonic() - started)
    if summary.failed_share > allow_failures:
        print(
            f"{summary.failed_share:.1%} of the clips were dropped, above the allowed {allow_failures:.1%} "
            "(--allow-failures)"
        )
        raise typer.Exit(1)


def _report(summary: PreprocessSummary, seconds: float) -> None:
    total = summary.kept + summary.dropped
    left_out = f"{summary.excluded} left out, " if summary.excluded else ""
    files = f"{left_out}{summary.skipped} other files"
    print(f"{summary.kept} of {total} clips kept, {files}; see `cmet-eval inspect {summary.out}`")
    for reason, count in summary.reasons.items():
        print(f"  dropped, {reason}: {count}")
    if summary.passing:
        print(f"  {summary.passing} of them for a reason that may pass; --retry tries them again")
    work = f"{summary.computed} clips processed in {seconds:.1f} s"
    if not summary.computed:
        work = f"{summary.removed} finished clips taken out" if summary.removed else "nothing to do: all was there"
    print(f"{work}; digest {summary.digest}")
