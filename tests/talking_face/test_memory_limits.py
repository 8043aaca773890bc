"""The default limit of memory, and workers that cannot start a process."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from talking_face.execution.memory import LEAST_BYTES, SHARE, default_limit, machine_memory
from talking_face.execution.workers import Task, run_tasks
from talking_face.reasons import UserError

PHYSICAL = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("line", "file", "text", "bytes_"),
    [
        ("0::/job/step", "job/memory.max", "1000000", 1_000_000),  # a limit of a group above
        ("0::/job/step", "job/step/memory.max", "max", PHYSICAL),
        ("0::/", "memory.max", "2000000", 2_000_000),  # inside a container
        ("4:cpu,memory:/job", "memory/job/memory.limit_in_bytes", "3000000", 3_000_000),  # version 1
        ("4:memory:/job", "memory/job/memory.limit_in_bytes", str(1 << 63), PHYSICAL),
        ("3:cpu:/job", "memory/job/memory.limit_in_bytes", "1", PHYSICAL),
    ],
)
def test_the_memory_of_a_control_group(tmp_path: Path, line: str, file: str, text: str, bytes_: int) -> None:
    (path := tmp_path / "cgroup" / file).parent.mkdir(parents=True)
    path.write_text(text)
    (tmp_path / "own").write_text(f"{line}\n")
    assert machine_memory(tmp_path / "cgroup", tmp_path / "own") == bytes_
    assert machine_memory(tmp_path, tmp_path / "absent") == PHYSICAL


def test_the_default_limit_is_shared_by_the_workers() -> None:
    usable = int(SHARE * machine_memory())
    assert default_limit(1) == usable
    assert default_limit(1000) == min(usable, LEAST_BYTES)


class _Popen:
    """Raises an error in place of the first starts of a process."""

    def __init__(self, failures: int) -> None:
        self.failures, self.real = failures, subprocess.Popen

    def __call__(self, *args: Any, **options: Any) -> subprocess.Popen[bytes]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return self.real(*args, **options)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def patch(failures: int) -> None:
        monkeypatch.setattr("talking_face.execution.processes.subprocess.Popen", _Popen(failures))

    return patch


def test_a_worker_tries_again_or_leaves_its_task_to_the_others(
    failing: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    failing(3)  # one of two workers fails twice, the other one once
    tasks = [Task(str(i), (i,)) for i in range(5)]
    results = list(run_tasks("builtins:abs", tasks, workers=2))
    assert sorted(result.value for result in results) == [0, 1, 2, 3, 4]
    told = capsys.readouterr().err
    assert told == "" or ("1 workers go on" in told and told.count("\n") == 1)


def test_no_process_at_all_is_one_line(failing: Callable[[int], None]) -> None:
    failing(1000)
    with pytest.raises(UserError, match="Resource temporarily unavailable") as error:
        list(run_tasks("builtins:abs", [Task("a", (1,)), Task("b", (2,))], workers=2))
    assert "\n" not in str(error.value)
