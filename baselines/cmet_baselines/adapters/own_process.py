"""The `python` adapter: a class of an outside repository, in a process of its own.

The parent's side; `host.py` is the child's. Arrays travel as .npy files in a folder of the process, so that the
method's interpreter needs nothing but numpy, and nothing is unpickled.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cmet_baselines.adapters.command import kill_group
from cmet_baselines.method import Case
from talking_face.reasons import ClipError, Reason

_HOST = Path(__file__).with_name("host.py")
_START_S = 300.0  # to import the method and make it: weights on a cold disk


class PythonRun(BaseModel):
    """How an outside class is run: the table `[run]` of a `python` entry. Unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folders: tuple[Path, ...] = ()  # of its repository, first on its import path; the first is where it runs
    python: Path = Path(sys.executable)  # of its environment, which needs numpy
    environment: dict[str, str] = Field(default_factory=dict)
    deadline_s: float = Field(default=600.0, gt=0)


class OwnProcessMethod:
    """A class of an outside repository. Its process starts with the first case and lives as long as ours."""

    def __init__(self, target: str, run: PythonRun | None = None) -> None:
        """Starts the process and asks the class for its name, revision and `sees`.

        Raises:
            ClipError: the class cannot be loaded; the message is its own.
        """
        self.target, self._run = target, run or PythonRun(folders=(Path.cwd(),))
        self.deadline_s = self._run.deadline_s
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="cmet-eval-method-"))
        self._unread = b""
        atexit.register(self.close)
        self.about = self._ask({"describe": True}, _START_S, None)
        self.name, self.revision = str(self.about["name"]), str(self.about["revision"])
        self.sees = frozenset(self.about["sees"])

    def generate(self, case: Case) -> np.ndarray:
        """The method's own answer to the case.

        Raises:
            ClipError: method-failed in the method's words; crashed where its process died; deadline.
        """
        arrays: dict[str, Any] = {}
        try:
            for name in case.offered():
                arrays[name] = self._save(name, getattr(case, name))
            plain: dict[str, Any] = {"pair_id": case.pair_id, "setting": case.setting, "speaker": case.speaker}
            plain |= {"n_frames": case.n_frames, "size": list(case.size), "seed": case.seed}
            if "emotion-label" in self.sees:
                plain |= {"target_emotion": case.target_emotion, "intensity": case.intensity}
            output = self._folder / "output.npy"
            output.unlink(missing_ok=True)
            message = {"plain": plain, "arrays": arrays, "output": str(output)}
            answer = self._ask(message, self.deadline_s, case.log)
            case.notes.extend(str(note) for note in answer["notes"])
            return np.asarray(np.load(output, allow_pickle=False))
        finally:
            for path in self._folder.glob("*.npy"):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """End the process and remove its folder."""
        if self._process is not None:
            kill_group(self._process)
            self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _save(self, name: str, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [self._save(f"{name}-{i}", item) for i, item in enumerate(value)]
        path = self._folder / f"{name}.npy"
        np.save(path, value, allow_pickle=False)
        return str(path)

    def _ask(self, message: dict[str, Any], deadline_s: float, log: Path | None) -> dict[str, Any]:
        process = self._started()
        said = self._folder / "said.txt"
        before = said.stat().st_size
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
            line = self._line(process, deadline_s)
        except BrokenPipeError:
            line = b""
        printed = said.read_bytes()[before:]
        if log is not None and printed:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_bytes(printed)
        if not line:
            tail = " ".join(printed.decode("utf-8", "replace").split())[-300:]
            kill_group(process)
            self._process = None
            words = f"the process of {self.target} ended with {process.returncode}: {tail or 'it printed nothing'}"
            raise ClipError(Reason.CRASHED, words)
        answer = json.loads(line)
        if "error" in answer:
            raise ClipError(Reason.METHOD_FAILED, f"{self.target}: {answer['error']}")
        return dict(answer)

    def _line(self, process: subprocess.Popen[bytes], deadline_s: float) -> bytes:
        """The next line of the process's answers; empty where it ended. Kills it at the deadline."""
        assert process.stdout is not None
        end = time.monotonic() + deadline_s
        while b"\n" not in self._unread:
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                kill_group(process)
                self._process = None
                raise ClipError(Reason.DEADLINE, f"{self.target} took over {deadline_s:g} s and was killed")
            part = process.stdout.read1(1 << 16)  # type: ignore[attr-defined]
            if not part:
                return b""
            self._unread += part
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._unread = b""
            self._folder.mkdir(exist_ok=True)
            with (self._folder / "said.txt").open("ab") as said:
                # Not a shell; -I would also hide the environment that the method may need, so only the path is ours.
                self._process = subprocess.Popen(
                    [str(self._run.python), str(_HOST), self.target, *map(str, self._run.folders)],
                    cwd=self._run.folders[0] if self._run.folders else None,
                    env={**os.environ, **self._run.environment},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    start_new_session=True,
                )
        return self._process
