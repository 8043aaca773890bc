"""GuardedProcess: nothing of a command outlives its end, the end of the caller, or `end`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from talking_face.execution.processes import GuardedProcess
from tests.hostile.tally import MARK, alive, listen

# The command leaves three processes: a child, one in a session of its own whose parent has ended, and one that ignores
# SIGTERM. The last one writes a file when all of them run.
FAMILY = """
sleep 1000 & (setsid sleep 1000 &)
setsid sh -c 'trap "" TERM; touch "$0"; sleep 1000; sleep 1000' {ready} &
while [ ! -e {ready} ]; do sleep 0.01; done; {then}
"""


def _family(tmp_path: Path, then: str) -> tuple[list[str], dict[str, str], str]:
    mark = f"test-{os.getpid()}-{tmp_path.name}"
    text = FAMILY.format(ready=tmp_path / "ready", then=then)
    return ["sh", "-c", text], {**os.environ, MARK: mark}, mark


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def _left(mark: str, seconds: float = 5.0) -> list[int]:
    deadline = time.monotonic() + seconds
    while (left := alive(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def test_processes_that_a_command_leaves_are_ended(tmp_path: Path) -> None:
    command, env, mark = _family(tmp_path, "exit 7")
    guarded = GuardedProcess(command, grace_s=0.2, env=env)
    assert guarded.process.wait(20) == 7
    guarded.end()
    assert alive(mark) == []


def test_end_ends_the_whole_tree(tmp_path: Path) -> None:
    command, env, mark = _family(tmp_path, "sleep 1000")
    guarded = GuardedProcess(command, grace_s=0.2, env=env)
    _wait_for(tmp_path / "ready")
    assert len(alive(mark)) >= 5 and guarded.memory_bytes() > 0
    guarded.end()
    assert alive(mark) == []
    guarded.end()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_the_caller(tmp_path: Path, number: signal.Signals) -> None:
    command, env, mark = _family(tmp_path, "sleep 1000")
    script = (
        "import sys, time\nfrom talking_face.execution.processes import GuardedProcess\n"
        "guarded = GuardedProcess(sys.argv[1:], grace_s=0.2)\ntime.sleep(1000)\n"
    )
    caller = subprocess.Popen(
        [sys.executable, "-c", script, *command], env=env, stderr=subprocess.DEVNULL, preexec_fn=listen
    )
    _wait_for(tmp_path / "ready")
    os.kill(caller.pid, number)
    caller.wait(60)
    assert _left(mark) == []


def test_sigterm_comes_before_sigkill(tmp_path: Path) -> None:
    text = f"trap 'echo bye > {tmp_path}/word; exit 3' TERM; touch {tmp_path}/ready; while :; do sleep 0.01; done"
    guarded = GuardedProcess(["sh", "-c", text], grace_s=5)
    _wait_for(tmp_path / "ready")
    guarded.end()
    assert (tmp_path / "word").read_text() == "bye\n" and guarded.process.returncode == 3


def test_the_status_is_that_of_the_command() -> None:
    for text, status in (("exit 0", 0), ("exit 9", 9), ("kill -SEGV $$", -signal.SIGSEGV), ("kill -9 $$", -9)):
        guarded = GuardedProcess(["sh", "-c", text])
        assert guarded.process.wait(20) == status
        guarded.end()


def test_a_command_that_cannot_start_raises_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        GuardedProcess([str(tmp_path / "nothing")])
    assert missing.value.filename == str(tmp_path / "nothing")
    with pytest.raises(PermissionError):
        GuardedProcess([str(tmp_path)])
    with pytest.raises(FileNotFoundError):
        GuardedProcess(["true"], cwd=tmp_path / "nowhere")
