"""The `cmet-eval` command: imports the file of a command, runs it, and prints expected failures as short messages.

Exit codes:

    0      done
    1      there were failures (in `preprocess`: more than the allowed share), or, for example, the disk is full
    2      wrong use
    130    stopped with Ctrl-C
"""

from __future__ import annotations

import errno
import functools
import importlib
import sys
from collections.abc import Callable
from typing import ParamSpec

import typer

from talking_face.reasons import ClipError, UserError

P = ParamSpec("P")

# Name of a command -> its line in `cmet-eval --help`. The code of a command is in commands/<name>.py. Only the file of
# the called command is imported, because importing the files of all commands takes seconds.
COMMANDS: dict[str, str] = {
    "doctor": "What is installed, which weights are here, what will not work and why.",
    "demo": "The whole job on the embedded corpus, to a leaderboard.",
    "synth": "Write the embedded corpus.",
    "preprocess": "A dataset on disk to Parquet shards and a ledger.",
    "inspect": "Counts, the ledger by reason, and a contact sheet of a shard set.",
    "train": "Train on a shard set: the reference models, or the evaluators of the `:corpus` metrics.",
    "pairs": "Draw a setting's pairs; export them for methods that run elsewhere.",
    "run": "Generate with a method, then score.",
    "score": "Score videos generated elsewhere.",
    "calibrate": "Spoil videos in known steps; see which metrics notice.",
    "leaderboard": "Rebuild every board from the result rows.",
    "compare": "Two methods on the pairs that both have, and the clips where they differ most.",
    "verify": "Score a random share of a submission again; check hashes and values.",
    "report": "Emotion proportion, identity deterioration, confusion, FID over a set, times.",
    "study": "A user study as a static page, and its analysis.",
    "baselines": "List the methods, or show one.",
    "weights": "List, fetch or verify the pretrained files.",
}


def build(wanted: str | None) -> typer.Typer:
    """The typer application. Only the code of the command `wanted` is loaded. Other commands have only a help line."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help="Preprocess talking-face datasets, score methods with a signed protocol, build leaderboards.",
    )
    app.callback()(_version)
    for name, about in COMMANDS.items():
        if name == wanted:
            module = importlib.import_module(f"cmet_eval.commands.{name}")
            app.command(name, help=module.__doc__)(_interruptible(getattr(module, name)))
        else:
            app.command(name, help=about)(_other)
    return app


def main() -> None:
    """Entry point of the `cmet-eval` script."""
    wanted = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    try:
        build(wanted)()
    except UserError as error:
        _stop(str(error), 2)
    except ClipError as error:
        _stop(f"{error.detail} ({error.reason.value})", 1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _stop("no space left on the disk; free some and run the same command again: finished work is kept", 1)
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
            _stop(f"{error.strerror}: {error.filename}", 2)
        raise


def _version(
    version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True),
) -> None:
    if version:
        from importlib.metadata import version as installed

        print(installed("cmet-eval"))
        raise typer.Exit()


def _interruptible(command: Callable[P, None]) -> Callable[P, None]:
    """The command, changed so that Ctrl-C prints a message. Without this change, typer prints no message."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            _stop("stopped; the same command resumes the work", 130)

    return wrapped


def _other() -> None:
    """Placeholder for a command that the user did not call. This function is never called."""


def _stop(message: str, code: int) -> None:
    print(f"cmet-eval: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
