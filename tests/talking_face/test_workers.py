"""run_tasks: deadlines, crashes and errors cost only their own task, children are reused and leave no orphans."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from talking_face.execution.workers import Task, run_tasks
from talking_face.reasons import Reason, UserError

FUNCTIONS = """
import os, signal, time
from talking_face.execution.stage import enter_stage
from talking_face.reasons import ClipError, Reason

def work(what, path=""):
    enter_stage("thinking")
    if what == "hang":
        time.sleep(1000)
    if what == "slow":
        time.sleep(0.3)
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "die-once" and not os.path.exists(path):
        open(path, "w").close()
        os._exit(3)
    if what == "clip-error":
        raise ClipError(Reason.NO_FACE, "nobody there")
    if what == "bug":
        raise KeyError("x\\ny")
    if what == "full":
        raise OSError(28, "No space left on device", "/x")
    if what == "print":
        os.write(1, b"noise on stdout")
    return os.getpid()
"""


@pytest.fixture
def function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "some_work.py").write_text(FUNCTIONS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    return "some_work:work"


def test_one_bad_task_costs_only_itself(function: str, tmp_path: Path) -> None:
    kinds = ["fine", "hang", "print", "die", "clip-error", "bug", "full", "fine"]
    tasks = [Task(f"{i}-{kind}", (kind,), deadline_s=1.5 if kind == "hang" else 60) for i, kind in enumerate(kinds)]
    tasks.append(Task("8-die-once", ("die-once", str(tmp_path / "marker")), 60))
    started = time.monotonic()
    results = {result.key.split("-", 1)[1]: result for result in run_tasks(function, tasks, workers=2)}
    assert time.monotonic() - started < 60
    assert {name: r.error.reason if r.error else None for name, r in results.items()} == {
        "fine": None,
        "hang": Reason.DEADLINE,
        "print": None,
        "die": Reason.CRASHED,
        "clip-error": Reason.NO_FACE,
        "bug": Reason.CRASHED,
        "full": Reason.NO_SPACE,
        "die-once": None,
    }
    assert results["hang"].stage == "thinking" and 1.4 < results["hang"].seconds < 10
    assert "SIGKILL" in results["die"].error.detail and results["die"].stage == "thinking"
    assert "\n" not in results["bug"].error.detail and "KeyError" in results["bug"].error.detail


def test_a_worker_keeps_one_child_and_nothing_runs_here(function: str) -> None:
    pids = {result.value for result in run_tasks(function, [Task(str(i), ("fine",)) for i in range(6)], workers=1)}
    assert len(pids) == 1 and os.getpid() not in pids
    deadline = time.monotonic() + 10
    while _alive(pid := pids.pop()) and time.monotonic() < deadline:
        pids.add(pid)
        time.sleep(0.1)
    assert not pids, "the child outlived the run"


def test_without_workers_it_runs_in_this_process(function: str) -> None:
    results = list(run_tasks(function, [Task("a", ("fine",)), Task("b", ("clip-error",))], workers=0))
    assert results[0].value == os.getpid()
    assert results[1].error is not None and results[1].error.reason is Reason.NO_FACE


def test_sigkill_on_the_parent_leaves_no_orphan(function: str, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "from talking_face.execution.workers import Task, run_tasks\n"
        "if __name__ == '__main__':\n"
        "    tasks = [Task('a', ('fine',)), *(Task(str(i), ('hang',)) for i in range(3))]\n"
        "    for result in run_tasks('some_work:work', tasks, workers=2):\n"
        "        print(result.value, flush=True)\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert parent.stdout is not None
    first_child = int(parent.stdout.readline())
    family = _session(parent.pid)
    assert first_child in family and len(family) >= 4
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 15
    while (left := _session(parent.pid)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left


def _session(leader: int) -> list[int]:
    """Living processes of the session that `leader` started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == leader and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def test_a_running_scheduler_that_loses_a_worker(function: str) -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit=0) as cluster:
        tasks = [Task(str(i), ("slow",), 60) for i in range(8)]
        seen, lost = [], False
        for result in run_tasks(function, tasks, scheduler=cluster.scheduler_address):
            assert result.error is None, result.error
            seen.append(result.key)
            if not lost:
                os.kill(next(iter(cluster.workers.values())).process.pid, signal.SIGKILL)
                lost = True
    assert sorted(seen) == [str(i) for i in range(8)]


def test_an_address_that_is_none_is_refused_at_once(function: str) -> None:
    with pytest.raises(UserError, match="tcp://HOST:8786"):
        next(run_tasks(function, [Task("a", ("slow",))], scheduler="head-node"))
