"""Turn a dataset on disk into Parquet shards. Killed at any moment, the same command finishes the work.

Examples:
    cmet-eval preprocess mead /data/MEAD work/mead --workers 8
    cmet-eval preprocess clips my-clips work/mine --align none
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_type_hints

import typer
from pydantic.fields import FieldInfo

from cmet_eval import completion
from cmet_eval.checks import check_file, check_folder
from cmet_eval.commands.options import MOST_WORKERS, address, finite
from cmet_pipelines.configure import Value, configure, read_config, reader_fields
from cmet_pipelines.frames_codec import LOSSLESS_CODEC
from cmet_pipelines.processing import ProcessingSettings
from cmet_pipelines.readers import READERS, get_reader
from talking_face.execution.options import RunOptions
from talking_face.files import check_writable
from talking_face.reasons import UserError

if TYPE_CHECKING:
    from cmet_pipelines.preprocess import PreprocessSummary

# Settings that are options of the command line. A --config file can change all settings.
SETTINGS = ("split", "defects", "clips", "align", "size", "codec", "require_audio", "deadline_s")


@dataclass(frozen=True)
class CommandOptions:
    """Options that are not settings: they leave the content of the shards unchanged, or are short forms of settings."""

    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML file of settings and reader options; the command line wins over it"),
    ] = None
    workers: Annotated[
        int,
        typer.Option(min=0, max=MOST_WORKERS, metavar="N", help="worker processes; 0: in this process, without limits"),
    ] = 2
    scheduler: Annotated[
        str | None,
        typer.Option(
            callback=address, metavar="ADDRESS", help="a running Dask scheduler, tls://HOST:PORT or tcp://HOST:PORT"
        ),
    ] = None
    memory: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            callback=finite,
            metavar="GB",
            help="memory that each worker process may take; default: 80% of the machine's, for all workers",
        ),
    ] = None
    lossless: Annotated[bool, typer.Option("--lossless", help=f"short for --codec {LOSSLESS_CODEC}")] = False
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="take only the first N clips")] = None
    retry: Annotated[bool, typer.Option("--retry", help="try clips dropped by a deadline or crash again")] = False
    prune: Annotated[
        bool, typer.Option("--prune", help="remove finished clips from OUT that are not asked for now")
    ] = False
    check: Annotated[
        bool,
        typer.Option(help="compare every byte of finished shards with their digests (1 s per GB), or only sizes"),
    ] = True
    allow_failures: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            callback=finite,
            metavar="SHARE",
            help="share of clips that may drop before the exit code is 1",
        ),
    ] = 0.05
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress")] = False


def preprocess(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET", autocompletion=completion.datasets, help=f"the reader: {', '.join(sorted(READERS))}"
        ),
    ],
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="folder of the dataset; never changed")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="folder for the shards")],
    **given: object,
) -> None:
    """Reads DATASET under ROOT and writes shards, ledger and card into OUT.

    `given` holds the fields of `CommandOptions`, the `SETTINGS`, and the options of all readers. None means that the
    user did not give the option.
    """
    from cmet_pipelines.preprocess import Selection
    from cmet_pipelines.preprocess import preprocess as run

    started = time.monotonic()
    get_reader(dataset)
    if not root.is_file():
        check_folder(root, "ROOT")
    check_writable(out)
    command = CommandOptions(**{field.name: given.pop(field.name) for field in fields(CommandOptions)})  # type: ignore[arg-type]
    if command.config is not None:
        check_file(command.config, "--config")
    values = read_config(command.config) if command.config else {}
    values |= {name: Value(value, _flag(name)) for name, value in given.items() if value is not None}
    if command.lossless:
        values["codec"] = _lossless(given["codec"])
    settings, options = configure(dataset, values)
    summary = run(
        dataset,
        root,
        out,
        settings,
        options,
        run=RunOptions(command.workers, command.scheduler, command.quiet, command.memory),
        selection=Selection(command.limit, command.retry, command.prune, command.check),
    )
    if not command.quiet:
        for note in summary.notes:
            print(note)
    _report(summary, time.monotonic() - started)
    if summary.failed_share > command.allow_failures:
        print(
            f"{summary.failed_share:.1%} of the clips were dropped, above the allowed {command.allow_failures:.1%} "
            "(--allow-failures)"
        )
        raise typer.Exit(1)
    if summary.unreadable:
        raise typer.Exit(1)


def _lossless(codec: object) -> Value:
    if codec not in (None, ProcessingSettings.model_fields["codec"].default, LOSSLESS_CODEC):
        raise UserError(f"--lossless is --codec {LOSSLESS_CODEC}; leave out one of --lossless and --codec {codec}")
    return Value(LOSSLESS_CODEC, "--lossless")


def _report(summary: PreprocessSummary, seconds: float) -> None:
    total = summary.kept + summary.dropped
    left_out = f"{summary.excluded} left out, " if summary.excluded else ""
    files = f"{left_out}{summary.skipped} other files"
    print(f"{summary.kept} of {total} clips kept, {files}; see `cmet-eval inspect {summary.out}`")
    for reason, count in summary.reasons.items():
        print(f"  dropped, {reason}: {count}")
    for reason, count in sorted(summary.lost.items()):
        print(f"  not taken, {reason}: {count}")
    if summary.unreadable:
        print(f"  {summary.unreadable} not readable; the ledger names each: give read permission and run again")
    if summary.transient:
        print(f"  {summary.transient} of them for a reason that may be transient; --retry tries them again")
    work = f"{summary.computed} clips processed in {seconds:.1f} s"
    if not summary.computed:
        removed = f"{summary.removed} finished clips removed"
        work = removed if summary.removed else "nothing to do: the shard set is complete"
    print(f"{work}; digest {summary.digest}")


# -- options from the declared fields ----------------------------------------------------------------------------------


def _parameters() -> Iterator[inspect.Parameter]:
    """The parameters that typer reads instead of `given`: one keyword parameter per option."""
    hints = get_type_hints(CommandOptions, include_extras=True)
    for own in fields(CommandOptions):
        assert own.default is not MISSING
        yield inspect.Parameter(
            own.name, inspect.Parameter.KEYWORD_ONLY, default=own.default, annotation=hints[own.name]
        )
    for name in SETTINGS:
        field = ProcessingSettings.model_fields[name]
        default = ProcessingSettings().size if name == "size" else field.default
        yield _parameter(name, field, field.description or "", default)
    for name, owners in reader_fields().items():
        texts = {field.description for field in owners.values()}
        about = "; ".join(f"{dataset}: {field.description}" for dataset, field in owners.items())
        if len(owners) == len(READERS) and len(texts) == 1:
            about = str(texts.pop())
        field = next(iter(owners.values()))
        yield _parameter(name, field, about, field.default)


def _parameter(name: str, field: FieldInfo, about: str, default: object) -> inspect.Parameter:
    """One option. Its default is None, so that the value in a settings file is used if the option is not given."""
    flag = _flag(name)
    names = f"{flag}/--no-{flag.removeprefix('--')}" if field.annotation is bool else flag
    shown: bool | str = False if default is None else _shown(flag, default)
    option = typer.Option(None, names, metavar=_metavar(name, field), help=about, show_default=shown)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=_kind(field))


def _kind(field: FieldInfo) -> object:
    """The type of an option for typer. The value is checked later by pydantic."""
    return _single(field) | None


def _single(field: FieldInfo) -> type:
    """The type of one value: bool, int, float or Path; str for everything else."""
    return next((kind for kind in (bool, int, float, Path) if field.annotation in (kind, kind | None)), str)


def _metavar(name: str, field: FieldInfo) -> str:
    """The word for the value of an option on the help page."""
    if name.endswith("_s"):
        return "SECONDS"
    return {int: "N", float: "NUMBER", Path: "FILE"}.get(_single(field), "NAME")


def _shown(flag: str, default: object) -> str:
    if isinstance(default, bool):
        return flag.removeprefix("--") if default else f"no-{flag.removeprefix('--')}"
    return f"{default:g}" if isinstance(default, float) else str(default)


def _flag(name: str) -> str:
    """The name of a setting's option; for example, `--deadline` for `deadline_s`."""
    return f"--{name.removesuffix('_s').replace('_', '-')}"


def _signature() -> inspect.Signature:
    own = [p for p in inspect.signature(preprocess, eval_str=True).parameters.values() if p.name != "given"]
    return inspect.Signature([*own, *_parameters()])


preprocess.__signature__ = _signature()  # type: ignore[attr-defined]
