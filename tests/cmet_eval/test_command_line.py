"""Tests how the real command ends: one line on errors and signals, a log, and output in any encoding."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cmet_eval import cli
from cmet_eval.failures import failure_of
from talking_face.interrupts import LINE
from tests.hostile.tally import listen

COMMAND = [sys.executable, "-m", "cmet_eval.cli"]


def run(*words: str | bytes | Path, **environment: str) -> tuple[int, str]:
    """Exit status, and standard output and error."""
    done = subprocess.run(
        [*COMMAND, *words],
        capture_output=True,
        timeout=120,
        env={**os.environ, **environment},
        check=False,
        preexec_fn=listen,
    )
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1", "cp1252"])
def test_output_that_is_not_utf8_shows_every_name(tmp_path: Path, encoding: str) -> None:
    place = os.fsencode(tmp_path) + "/é日本".encode() + b"\xe9\xff"
    status, text = run("inspect", place, PYTHONIOENCODING=encoding)
    assert status == 2 and text.count("\n") == 1 and "no folder" in text and r"\xe9\xff" in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("wait_for", ["typer", "numpy"])
def test_a_signal_during_imports_is_one_line(tmp_path: Path, number: signal.Signals, wait_for: str) -> None:
    # A package that sends the signal to its own process stands in for the moment at which the library is imported.
    package = tmp_path / "modules" / wait_for
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"import os, time\nos.kill(os.getpid(), {number})\ntime.sleep(30)\n")
    started = time.monotonic()
    status, text = (
        run("score", "--help", PYTHONPATH=str(package.parent))
        if wait_for == "typer"
        else run("preprocess", "mead", tmp_path, tmp_path / "out", PYTHONPATH=str(package.parent))
    )
    assert (status, text) == (128 + number, f"{LINE}\n") and time.monotonic() - started < 25


def main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str]:
    """Exit status and standard error of a command in this process."""
    monkeypatch.setattr(sys, "argv", ["cmet-eval", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0), capsys.readouterr().err


WORKS = """
import os, signal, sys, time
import embedded_corpus.writing
from cmet_eval import cli

def works(*_, **__):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
    finally:
        os.kill(os.getpid(), signal.SIGINT)  # as a user who presses Ctrl-C during cleaning
        print("cleaned")

embedded_corpus.writing.write_corpus = works
sys.argv = ["cmet-eval", "synth", "mead", sys.argv[1], "--quiet"]
cli.main()
"""


def test_a_signal_while_a_command_works_cleans_up_once(tmp_path: Path) -> None:
    words = [sys.executable, "-c", WORKS, str(tmp_path / "x")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, preexec_fn=listen)
    assert (done.returncode, done.stdout, done.stderr) == (143, "cleaned\n", f"{LINE}\n")


def outs(folder: Path) -> list[Path]:
    """Output folders that cannot be used: a file, a loop of links, a name of 300 characters, and a read-only one."""
    (folder / "file").write_text("a file")
    (folder / "loop").symlink_to(folder / "loop")
    return [folder / "file", folder / "loop", folder / ("x" * 300), Path("/sys/cmet-eval")]  # /sys: also for root


def command_with_out(name: str, shards: Path, empty: Path, out: Path) -> list[str | Path]:
    """The words of a command that writes into `out`."""
    words: dict[str, list[str | Path]] = {
        "synth": [out, "--speakers", "1", "--seconds", "0.4"],
        "demo": ["--out", out],
        "preprocess": [empty, out],
        "train": ["--data", shards, "--out", out],
        "import": [empty / "a.mp4", "--codec", "edtalk:c", "--speech", "stored:v", "--out", out],
        "pairs": ["--data", shards, "-o", out / "p.parquet"],
        "run": ["--method", "static-reference", "--data", shards, "--out", out],
        "calibrate": ["--data", shards, "--out", out],
        "leaderboard": ["--run", empty, "--out", out],
        "standing": ["--results", empty, "--out", out],
        "report": ["--run", empty, "--out", out],
        "study": ["--run", empty, "--out", out],
        "inspect": [out],
        "measure": [empty, "--out", out],
        "submit": [empty, "--out", out],
        "score": ["--videos", empty, "--pairs", "p", "--data", shards, "--method-name", "m", "--out", out],
        "compare": ["a", "b", "--run", empty, "--out", out],
    }
    first = {"synth": "mead", "preprocess": "clips", "train": "evaluators", "import": "cmet", "pairs": "neutral-base"}
    first |= {"report": "confusion", "study": "make"}
    return [name, *([first[name]] if name in first else []), *words[name]]


NO_OUT = {"doctor", "verify", "baselines", "weights", "metrics", "protocols", "cite"}


@pytest.mark.parametrize("name", sorted(cli.COMMANDS.keys() - NO_OUT))
def test_an_out_that_cannot_be_used_is_one_line(name: str, monkeypatch, capsys, shards: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.mp4").write_bytes(b"no video")
    for out in outs(tmp_path):
        status, text = main(monkeypatch, capsys, *command_with_out(name, shards, tmp_path / "empty", out))
        lines = [line for line in text.splitlines() if line.startswith("cmet-eval: ")]
        assert status in (1, 2) and len(lines) == 1 and "unexpected" not in text and "Traceback" not in text, (
            out,
            text,
        )


# -- the last handler, and the log -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "words", "status"),
    [
        (TypeError("'NoneType' object\nis not iterable"), "unexpected TypeError: 'NoneType' object is not iterable", 1),
        (RecursionError("maximum recursion depth exceeded"), "unexpected RecursionError: maximum recursion", 1),
        (UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "invalid"), "unexpected UnicodeDecodeError: 'utf-8' codec", 1),
        (MemoryError(), "not enough memory", 1),
        (ImportError("libcudart.so.12: cannot open shared object file"), "cannot be imported: libcudart.so.12", 1),
        *(
            (OSError(number, os.strerror(number), "/x/\udce9"), f"{os.strerror(number)}: /x/\\xe9", status)
            for number, status in (
                *((errno.EFBIG, 1), (errno.ENOLCK, 1), (errno.EIO, 1), (errno.EMFILE, 1)),
                *((errno.ELOOP, 2), (errno.ENAMETOOLONG, 2)),
            )
        ),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "no space left on the disk", 1),
        (OSError("the words of a library"), "the words of a library", 1),
    ],
)
def test_every_error_is_one_line(error: Exception, words: str, status: int) -> None:
    failure = failure_of(error)
    assert words in failure.text and "\n" not in failure.text and failure.status == status


def test_an_unexpected_error_is_one_line_and_its_traceback_is_in_the_log(monkeypatch, capsys, shards, tmp_path) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a fault of the suite")

    monkeypatch.setattr("cmet_eval.runs.evaluate.run", fails)
    (tmp_path / "out").mkdir()
    words = ("run", "--method", "static-reference", "--data", shards, "--out", tmp_path / "out")
    status, text = main(monkeypatch, capsys, *words)
    log = tmp_path / "out" / "logs" / "run.log"
    assert (status, text.count("\n")) == (1, 1) and "unexpected ZeroDivisionError: a fault of the suite" in text
    assert str(log) in text and "Traceback" not in text
    written = log.read_text()
    assert "Traceback (most recent call last)" in written and "cmet-eval run --method static-reference" in written
    monkeypatch.setenv("CMET_EVAL_DEBUG", "1")
    assert "Traceback (most recent call last)" in main(monkeypatch, capsys, *words)[1]


def test_wrong_use_writes_no_folder(monkeypatch, capsys, shards: Path, tmp_path: Path) -> None:
    words = ("run", "--method", "no-such-method", "--data", shards, "--out", tmp_path / "out")
    assert main(monkeypatch, capsys, *words)[0] == 2 and not (tmp_path / "out").exists()


def test_a_full_standard_output_is_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*COMMAND, "baselines", "list"], stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 1 and done.stderr.count(b"\n") == 1 and b"no space left" in done.stderr


@pytest.mark.parametrize("out", ["data", "foreign"])
def test_a_folder_that_preprocess_refuses_gets_no_log(tmp_path: Path, out: str) -> None:
    for name in ("data", "foreign"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.mp4").write_bytes(b"text")
    status, text = run("preprocess", "clips", tmp_path / "data", tmp_path / out)
    assert status == 2 and text.count("\n") == 1
    assert {path.name for path in (tmp_path / out).iterdir()} == {"thesis.mp4"}
