"""run_tasks: deadlines, crashes and errors cost only their own task, children are reused and leave no orphans."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from talking_face.execution.workers import Task, run_tasks
from talking_face.reasons import Reason, UserError
from tests.hostile.tally import MARK, alive, listen

FUNCTIONS = """
import os, signal, subprocess, sys, time
from talking_face.execution.stage import allow_seconds, enter_stage
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
        os.write(1, b"noise on stdout" * 100_000)
    if what == "exit":
        raise SystemExit(5)
    if what == "lambda":
        return lambda: None
    if what == "large":
        return bytes(300 << 20)
    if what == "unreadable":
        return Unreadable()
    if what == "memory-error":
        return bytes(1 << 62)
    if what == "greedy":
        hold = [bytearray(os.urandom(1 << 20) * 200) for _ in range(8)]
    if what == "greedy-child":
        subprocess.run([sys.executable, "-c", "x = b'x' * (900 << 20); import time; time.sleep(1000)"])
    if what == "garbage":
        for descriptor in range(3, 1000):
            try:
                os.write(descriptor, b"noise in the channel" * 100)
            except OSError:
                pass
    if what == "long":
        allow_seconds(60)
        time.sleep(2.5)
    if what == "two-inputs":
        for name, seconds in (("first", 0.1), ("second", 1000)):
            enter_stage(name)
            allow_seconds(1)
            time.sleep(seconds)
    if what == "daemon":
        subprocess.Popen(["setsid", "sh", "-c", "trap '' TERM; (sleep 1000 &); sleep 1000; sleep 1000"])
        open(path, "w").close()
        time.sleep(1000)
    return os.getpid()


class Unreadable:
    def __reduce__(self):
        return int, ("not a number",)
"""


@pytest.fixture
def function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "some_work.py").write_text(FUNCTIONS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    return "some_work:work"


def test_one_bad_task_costs_only_itself(function: str, tmp_path: Path) -> None:
    kinds = ["fine", "hang", "print", "die", "clip-error", "bug", "full", "exit", "lambda", "large", "unreadable"]
    kinds += ["memory-error", "garbage", "fine"]
    tasks = [Task(f"{i}-{kind}", (kind,), deadline_s=1.5 if kind == "hang" else 60) for i, kind in enumerate(kinds)]
    tasks.append(Task("0-die-once", ("die-once", str(tmp_path / "marker")), 60))
    tasks.append(Task("0-unsendable", (lambda: None,), 60))
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
        "exit": Reason.CRASHED,
        "lambda": Reason.CRASHED,
        "large": Reason.CRASHED,
        "unreadable": Reason.CRASHED,
        "memory-error": Reason.OUT_OF_MEMORY,
        "garbage": Reason.CRASHED,
        "die-once": None,
        "unsendable": Reason.CRASHED,
    }
    assert all("\n" not in result.error.detail for result in results.values() if result.error)
    for name, words in (("lambda", "result cannot be sent"), ("large", "300 MB"), ("unreadable", "answer cannot be")):
        assert words in results[name].error.detail
    assert results["hang"].stage == "thinking" and 1.4 < results["hang"].seconds < 10
    assert "SIGKILL" in results["die"].error.detail and results["die"].stage == "thinking"
    assert "KeyError" in results["bug"].error.detail


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


def test_a_limit_of_memory_costs_one_task_also_for_processes_below(function: str) -> None:
    tasks = [Task(kind, (kind,), 60) for kind in ("fine", "greedy", "greedy-child")]
    results = {result.key: result for result in run_tasks(function, tasks, workers=2, memory_bytes=600 << 20)}
    assert results["fine"].error is None
    for kind in ("greedy", "greedy-child"):
        error, stage = results[kind].error, results[kind].stage
        assert error and error.reason is Reason.OUT_OF_MEMORY and "0.6 GB" in error.detail and stage == "thinking"


def test_a_task_changes_its_deadline(function: str) -> None:
    tasks = [Task(kind, (kind,), 2) for kind in ("long", "two-inputs")]
    results = {result.key: result for result in run_tasks(function, tasks, workers=2)}
    assert results["long"].error is None
    error = results["two-inputs"].error
    assert error and error.reason is Reason.DEADLINE and "after 1 s" in error.detail
    assert results["two-inputs"].stage == "second"


def test_a_function_that_cannot_be_imported_ends_the_run_in_one_line(function: str) -> None:
    with pytest.raises(UserError, match="No module named 'no_such_module'") as error:
        list(run_tasks("no_such_module:work", [Task(str(i), ("fine",)) for i in range(5)], workers=2))
    assert "\n" not in str(error.value)


# A script without a main guard. It prints the listening and bound sockets of its process during the run.
SCRIPT = """
import asyncio, os, sys, threading
from pathlib import Path
from talking_face.execution.workers import Task, run_tasks

def sockets():
    own = {os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if name != "0"
           and os.path.exists(f"/proc/self/fd/{name}") or os.path.islink(f"/proc/self/fd/{name}")}
    lines = [line.split() for kind in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6")
             for line in Path(f"/proc/self/net/{kind}").read_text().splitlines()[1:]]
    return [line[1] for line in lines if f"socket:[{line[9]}]" in own]

def work():
    for result in run_tasks("some_work:work", [Task(str(i), ("fine",)) for i in range(4)], workers=2):
        print("error" if result.error else "fine", sockets())

async def in_loop():
    work()

if MODE == "thread":
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
elif MODE == "loop":
    asyncio.run(in_loop())
else:
    work()
"""


@pytest.mark.parametrize("mode", ["script", "stdin", "thread", "loop"])
def test_any_kind_of_script_works_and_opens_no_port(function: str, tmp_path: Path, mode: str) -> None:
    text = SCRIPT.replace("MODE", repr(mode))
    (tmp_path / "script.py").write_text(text)
    ended = subprocess.run(
        [sys.executable, "-" if mode == "stdin" else str(tmp_path / "script.py")],
        input=text if mode == "stdin" else "",
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "TMPDIR": str(tmp_path / "absent"), "HOME": "/proc"},
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == ["fine []"] * 4


@pytest.mark.parametrize("files", [40, 12])
def test_few_open_files_are_enough_or_one_line(function: str, tmp_path: Path, files: int) -> None:
    script = (
        "from talking_face.execution.workers import Task, run_tasks\n"
        "from talking_face.reasons import UserError\n"
        "try:\n"
        "    tasks = [Task(str(i), ('fine',)) for i in range(9)]\n"
        "    print(*(result.error for result in run_tasks('some_work:work', tasks, workers=9)))\n"
        "except UserError as error:\n"
        "    print(error)\n"
    )
    shell = 'ulimit -n "$1"; exec "$2" -c "$3"'
    ended = subprocess.run(
        ["sh", "-c", shell, "sh", str(files), sys.executable, script], capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in ended.stderr and ended.returncode == 0
    assert ended.stdout.count("\n") == 1
    assert ended.stdout.split() == ["None"] * 9 or (files == 12 and "Too many open files" in ended.stdout)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_the_parent(function: str, tmp_path: Path, number: signal.Signals) -> None:
    started = tmp_path / "started"
    script = (
        "from talking_face.execution.workers import Task, run_tasks\n"
        f"tasks = [Task('a', ('daemon', {str(started)!r})), *(Task(str(i), ('hang',)) for i in range(3))]\n"
        "list(run_tasks('some_work:work', tasks, workers=2))\n"
    )
    mark = f"test-{os.getpid()}-{number}"
    environment = {**os.environ, MARK: mark}
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.DEVNULL, env=environment, preexec_fn=listen
    )
    deadline = time.monotonic() + 60
    # The parent, two guards, two children, and at least two processes below a child.
    while not (started.exists() and len(seen := alive(mark)) >= 7) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert started.exists() and len(seen) >= 7
    os.kill(parent.pid, number)
    parent.wait(15)
    deadline = time.monotonic() + 15
    while (left := alive(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


# -- a running scheduler -----------------------------------------------------------------------------------------------


def test_a_running_scheduler_that_loses_a_worker(function: str, capsys: pytest.CaptureFixture[str]) -> None:
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
    assert "not encrypted" not in capsys.readouterr().err  # nobody else can listen on the loopback device


def test_a_scheduler_that_ends_is_one_line(function: str, capsys: pytest.CaptureFixture[str]) -> None:
    from distributed import LocalCluster

    cluster = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, memory_limit=0)
    address = cluster.scheduler_address.replace("127.0.0.1", "0.0.0.0")
    results = run_tasks(function, [Task(str(i), ("slow",), 60) for i in range(50)], scheduler=address)
    next(results)
    cluster.close()
    with pytest.raises(UserError, match="run the same command again") as error:
        list(results)
    assert "\n" not in str(error.value)
    assert "not encrypted: anyone on that network can run code" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed: no key can be made")
def test_a_scheduler_with_tls(function: str, tmp_path: Path) -> None:
    import dask
    from distributed import LocalCluster, Security

    key, cert = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run([*make, "-keyout", key, "-out", cert], check=True, capture_output=True)
    settings = {"distributed.comm.tls.ca-file": cert}
    for role in ("scheduler", "worker", "client"):
        settings |= {f"distributed.comm.tls.{role}.key": key, f"distributed.comm.tls.{role}.cert": cert}
    with dask.config.set(settings):
        cluster = LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=None, protocol="tls", security=Security()
        )
    with cluster:
        tasks = [Task(str(i), ("fine",)) for i in range(3)]
        with pytest.raises(UserError, match="cannot reach"):  # without certificates
            list(run_tasks(function, tasks, scheduler=cluster.scheduler_address))
        with dask.config.set(settings):
            results = list(run_tasks(function, tasks, scheduler=cluster.scheduler_address))
    assert cluster.scheduler_address.startswith("tls://") and [r.error for r in results] == [None] * 3


@pytest.mark.parametrize("address", ["head-node", "head-node:8786", "http://head-node:8786", "tcp://", "tcp://x:port"])
def test_an_address_that_is_none_is_refused_at_once(function: str, address: str) -> None:
    with pytest.raises(UserError, match="tcp://HOST:8786"):
        next(run_tasks(function, [Task("a", ("slow",))], scheduler=address))


def test_a_second_run_on_a_cluster_finds_the_same_configuration() -> None:
    script = (
        "from talking_face.execution.workers import Task, run_tasks\n"
        "from talking_face.reasons import UserError\n"
        "for _ in range(2):\n"
        "    try:\n"
        "        list(run_tasks('os:getpid', [Task('a', ())], scheduler='tcp://127.0.0.1:1'))\n"
        "    except UserError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and len(set(done.stdout.splitlines())) == 1, done.stdout + done.stderr
