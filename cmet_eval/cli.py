"""The `cmet-eval` command: imports the file of a command, runs it, and prints failures as short messages.

Exit codes:

    0      done
    1      there were failures (in `preprocess`: more than the allowed share), or, for example, the disk is full
    2      the command cannot start with what it was given: wrong use, or a damaged file
    129    stopped by SIGHUP, when the terminal was closed
    130    stopped with Ctrl-C
    143    stopped by SIGTERM

The traceback of an unexpected error goes to the command's log: OUT/logs/COMMAND.log or a temporary file. With the
environment variable CMET_EVAL_DEBUG=1, it is also printed.

Other modules are imported after the signal handlers are set, so that Ctrl-C during these imports prints a line.
"""

from __future__ import annotations

import contextlib
import os
import sys

from talking_face.interrupts import LINE, Interrupts

TYPE_CHECKING = False  # the module typing is not imported, because this takes as long as all other imports here
if TYPE_CHECKING:
    import typer

    from talking_face.logs import CommandLog

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
    import importlib

    import typer

    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help="Preprocess talking-face datasets, score methods with a signed protocol, build leaderboards.",
    )

    def about(
        version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True),
    ) -> None:
        if version:
            from importlib.metadata import version as installed

            print(installed("cmet-eval"))
            raise typer.Exit()

    app.callback()(about)
    for name, line in COMMANDS.items():
        if name == wanted:
            module = importlib.import_module(f"cmet_eval.commands.{name}")
            app.command(name, help=module.__doc__)(getattr(module, name))
        else:
            app.command(name, help=line)(_other)
    return app


def main() -> None:
    """Entry point of the `cmet-eval` script."""
    interrupts = Interrupts()
    try:
        with interrupts.listening():
            _run(interrupts)
    except BaseException as end:
        # After a signal, every exception is a consequence of it. Typer turns the signal's own exception into an exit,
        # and a library can turn it into another error.
        if interrupts.status:
            _end(interrupts.status)
        if isinstance(end, KeyboardInterrupt):
            _exit(LINE, 130)
        raise


def _run(interrupts: Interrupts) -> None:
    """Runs the command of the command line. An exception becomes one line and an exit status."""
    from talking_face.logs import CommandLog, log_start, logging_to

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a character that the terminal's encoding lacks is printed as an escape
            stream.reconfigure(errors="backslashreplace")
    wanted = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    log = CommandLog(wanted if wanted in COMMANDS else "cmet-eval")
    with logging_to(log):
        log_start(sys.argv[1:])
        try:
            app = build(wanted)
            interrupts.begin()
            app()
        except Exception as error:
            if interrupts.status:
                raise
            _fail(error, log)
        finally:
            # A worker that was killed cannot remove its temporary folders.
            from talking_face.scratch import remove_abandoned

            remove_abandoned()
            _flush()


def _fail(error: Exception, log: CommandLog) -> None:
    """Prints the line of an error and exits. The traceback of an unexpected error goes to the log."""
    import logging
    import traceback

    from cmet_eval.failures import failure_of

    failure = failure_of(error)
    where = ""
    if os.environ.get("CMET_EVAL_DEBUG", "0") not in ("", "0"):
        traceback.print_exception(error)
    # Not `__name__`, which is `__main__` in `python -m cmet_eval.cli`, a logger without a handler.
    logging.getLogger("cmet_eval.cli").error("%s", failure.text, exc_info=error)
    if failure.unexpected and (path := log.save_anywhere()) is not None:
        where = f"; the traceback is in {path}"
    _exit(f"cmet-eval: {failure.text}{where}", failure.status)


def _flush() -> None:
    """Writes what is still buffered, because Python would print a traceback if this fails at the exit."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            if stream is not None:
                stream.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            if not isinstance(error, BrokenPipeError):
                raise


def _end(status: int) -> None:
    """Prints the line of a signal and ends the process, after the functions of `atexit`.

    Python's own end is left out: if the signal came while a library started its threads, the library's end can abort.
    """
    import atexit

    with contextlib.suppress(SystemExit):
        _exit(LINE, status)
    atexit._run_exitfuncs()
    _flush()
    os._exit(status)


def _exit(message: str, status: int) -> None:
    try:
        print(message, file=sys.stderr, flush=True)
    except OSError:  # there is no terminal any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.exit(status)


def _other() -> None:
    """Placeholder for a command that the user did not call. This function is never called."""


if __name__ == "__main__":
    main()
