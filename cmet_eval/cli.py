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
    from types import ModuleType

    import typer

    from talking_face.logs import CommandLog

# What commands are for -> name of a command -> its line in `cmet-eval --help`. The code of a command is in
# commands/<name>.py. Only the file of the called command is imported, because importing all files takes seconds.
GROUPS: dict[str, dict[str, str]] = {
    "Score videos that you have": {
        "measure": "Measure videos against real videos: files, folders or a list.",
        "metrics": "List every metric: what it measures, needs and costs, and whether it can be used here.",
        "protocols": "List the protocols of `measure`: how published evaluations treat and score videos.",
        "cite": "Print the BibTeX of metrics, methods, datasets and this suite.",
        "score": "Score a folder of videos that were generated from a pair list.",
    },
    "Run methods": {
        "demo": "Do the whole job on the embedded corpus, from drawing it to a leaderboard.",
        "run": "Generate the videos of methods, then score them.",
        "pairs": "Draw a setting's pairs; export them for methods that run elsewhere.",
        "baselines": "List the methods, or show one.",
    },
    "Prepare data": {
        "synth": "Write the embedded corpus.",
        "preprocess": "Turn a dataset on disk into Parquet shards and a ledger.",
        "inspect": "Show counts, the ledger by reason, and a contact sheet of a shard set.",
    },
    "Train": {
        "train": "Train the reference models, or the evaluators of the `:corpus` metrics.",
        "import": "Turn a checkpoint that C-MET's authors released into one of this suite.",
    },
    "Compare and publish": {
        "leaderboard": "Build every board from the result rows of a run.",
        "standing": "Build the site of the standing leaderboard; add the rows of a run.",
        "compare": "Compare two methods on the pairs that both have, and show the clips that differ.",
        "report": "Write tables: emotion proportion, identity, confusion, FID over a set, times.",
        "submit": "Write a bundle for the standing leaderboard: rows, record, and 5% of the videos.",
        "verify": "Check a bundle, or score a random share of a run again.",
        "study": "Make a user study as a static page; analyse its answers.",
        "calibrate": "Damage videos in known steps; see which metrics notice.",
    },
    "This machine": {
        "doctor": "Show what is installed, which weights are here, and what will not work.",
        "weights": "List, fetch or verify the pretrained files.",
    },
}
COMMANDS: dict[str, str] = {name: line for group in GROUPS.values() for name, line in group.items()}
# Name of a command -> the extras that it needs; see `talking_face.packages`. Other commands need only the core.
NEEDS: dict[str, tuple[str, ...]] = {
    "score": ("pipelines",),
    "demo": ("boards", "pipelines", "weights", "reference"),
    "run": ("pipelines",),
    "pairs": ("pipelines",),
    "synth": ("pipelines",),
    "preprocess": ("pipelines",),
    "inspect": ("pipelines",),
    "train": ("reference", "pipelines"),
    "import": ("reference", "pipelines"),
    "leaderboard": ("boards",),
    "standing": ("boards", "pipelines", "reference"),
    "compare": ("boards",),
    "report": ("boards",),
    "submit": ("pipelines",),
    "verify": ("pipelines",),
    "study": ("boards",),
    "calibrate": ("boards",),
}
COMPLETION = "_CMET_EVAL_COMPLETE"  # set by the shell that asks for completions


def build(wanted: str | None) -> typer.Typer:
    """The typer application. Only the code of the command `wanted` is loaded. Other commands have only a help line."""
    if COMPLETION in os.environ:
        # Typer breaks the summary of a name at the width of the terminal, and fish takes each line as a name.
        os.environ["COLUMNS"] = "10000"
    import typer

    from cmet_eval.help_pages import NAMES, Command, Group, about, help_and_examples

    app = typer.Typer(
        cls=Group,
        context_settings=NAMES,
        invoke_without_command=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help="Preprocess talking-face datasets, score methods with a signed protocol, build leaderboards.",
    )

    app.callback()(about)
    for title, commands in GROUPS.items():
        for name, line in commands.items():
            function, text, examples = _other, line, ""
            if name == wanted:
                module = _module(name)
                function, (text, examples) = getattr(module, _file(name)), help_and_examples(module.__doc__ or "")
            app.command(
                name,
                cls=Command,
                context_settings=NAMES,
                help=text,
                epilog=examples,
                short_help=line,
                rich_help_panel=title,
            )(function)
    return app


def _file(name: str) -> str:
    """The name of a command's file and function. `import` is a word of Python, so its file has another name."""
    return {"import": "import_checkpoint"}.get(name, name)


def _module(name: str) -> ModuleType:
    """The module of a command. Its help page is shown without the extras, if the module can be imported without them.

    Raises UserError if an extra is absent.
    """
    import importlib

    from talking_face.packages import need_extras

    needed = NEEDS.get(name, ())
    if not {"-h", "--help"}.intersection(sys.argv[1:]):
        need_extras(name, *needed)
    try:
        return importlib.import_module(f"cmet_eval.commands.{_file(name)}")
    except ModuleNotFoundError:
        need_extras(name, *needed)
        raise


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
    from talking_face.threads import pin_arithmetic

    pin_arithmetic()  # all commands compute alike: shards of `preprocess` and of `demo` have the same bytes
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a character that the terminal's encoding lacks is printed as an escape
            stream.reconfigure(errors="backslashreplace")
    wanted = next((word for word in _words() if not word.startswith("-")), None)
    log = CommandLog(wanted if wanted in COMMANDS else "cmet-eval")
    with logging_to(log):
        log_start(sys.argv[1:])
        try:
            app = build(wanted)
            interrupts.begin()
            sys.exit(app(prog_name="cmet-eval", standalone_mode=False) or 0)
        except Exception as error:
            if interrupts.status:
                raise
            _fail(error, log)
        finally:
            # A worker that was killed cannot remove its temporary folders.
            from talking_face.scratch import remove_abandoned

            remove_abandoned()
            _flush()


def _words() -> list[str]:
    """The words of the command line; while the shell completes one, the words that were typed so far."""
    if COMPLETION in os.environ:  # bash sets the first of these variables, other shells the second
        return (os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or "").split()[1:]
    return sys.argv[1:]


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
