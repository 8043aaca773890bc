"""Defines the `python` adapter, which runs a class from another repository in its own process.

This module runs in the parent process, and `host.py` runs in the child process. Arrays are exchanged as .npy files
in a temporary folder. Therefore the method's interpreter needs only numpy, and no pickle is loaded.
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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cmet_baselines.adapters.command import kill_group
from cmet_baselines.method import Case
from talking_face.reasons import ClipError, Reason

_HOST = Path(__file__).with_name("host.py")
_START_S = 300.0  # time to import the class and to create the method, with weights on a slow disk
_TAIL = 300  # number of the output's last characters in an error message


class PythonRun(BaseModel):
    """The table `[process]` of a `python` entry: how the class is run. Unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # The folders of the class's repository. They are first on the import path. The class runs in the first folder.
    folders: tuple[Path, ...] = ()
    python: Path = Path(sys.executable)  # the interpreter of the class's environment, which must have numpy
    environment: dict[str, str] = Field(default_factory=dict)  # variables that are added to this process's environment
    deadline_s: float = Field(default=600.0, gt=0)  # per pair


class OwnProcessMethod:
    """A class from another repository, in a child process that ends when the parent process ends.

    Attributes:
        title, summary: the class's `title`, and the first line of its docstring; empty if they are missing.
        missing_members: the members of `Method` that the class does not have.
    """

    def __init__(self, target: str, run: PythonRun | None = None) -> None:
        """Start the child process and read the name, revision and `sees` of the class.

        Args:
            target: `module:Class`; the class is called without arguments.
            run: how the class is run. None: it runs in the current folder, with the interpreter of this process.

        Raises:
            ClipError: the class cannot be loaded; the message contains the error of the child process.
        """
        self.target, self._run = target, run or PythonRun(folders=(Path.cwd(),))
        self.deadline_s = self._run.deadline_s
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="cmet-eval-method-"))
        self._unread = b""
        atexit.register(self.close)
        about = self._request({"describe": True}, _START_S, None)
        self.missing_members = [member for member in ("name", "revision") if not isinstance(about[member], str)]
        self.missing_members += [] if about["generates"] else ["generate"]
        self.name, self.revision = str(about["name"]), str(about["revision"])
        self.title, self.summary = str(about["title"] or ""), str(about["summary"])
        self.sees = frozenset(map(str, about["sees"]))

    def generate(self, case: Case) -> np.ndarray:
        """The array that the method returns for the case.

        Raises:
            ClipError: method-failed (the message is the method's message), crashed (the child process ended), deadline.
        """
        try:
            arrays = {name: self._save(name, getattr(case, name)) for name in case.offered()}
            plain: dict[str, object] = {"pair_id": case.pair_id, "setting": case.setting, "speaker": case.speaker}
            plain |= {"n_frames": case.n_frames, "size": list(case.size), "seed": case.seed}
            if "emotion-label" in self.sees:
                plain |= {"target_emotion": case.target_emotion, "intensity": case.intensity}
            output = self._folder / "output.npy"
            output.unlink(missing_ok=True)
            message = {"plain": plain, "arrays": arrays, "output": str(output)}
            answer = self._request(message, self.deadline_s, case.log)
            case.notes.extend(str(note) for note in answer["notes"])
            return np.asarray(np.load(output, allow_pickle=False))
        finally:
            for path in self._folder.glob("*.npy"):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """End the child process and delete the temporary folder."""
        self._kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _kill(self) -> None:
        if self._process is not None:
            kill_group(self._process)
            self._process = None

    def _save(self, name: str, value: np.ndarray | list[np.ndarray]) -> str | list[str]:
        """Write an input, and return the path of its file. For a list of arrays, return one path per array."""
        if isinstance(value, list):
            return [self._save_array(f"{name}-{i}", item) for i, item in enumerate(value)]
        return self._save_array(name, value)

    def _save_array(self, name: str, array: np.ndarray) -> str:
        path = self._folder / f"{name}.npy"
        np.save(path, array, allow_pickle=False)
        return str(path)

    def _request(self, message: Mapping[str, object], deadline_s: float, log: Path | None) -> dict[str, Any]:
        """Send one JSON line to the child and return its answer. The child's printed output is written to `log`."""
        process = self._running_process()
        printed = self._folder / "printed.txt"
        before = printed.stat().st_size
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
            line = self._read_line(process, deadline_s)
        except BrokenPipeError:
            line = b""
        text = printed.read_bytes()[before:]
        if log is not None and text:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_bytes(text)
        if not line:
            self._kill()
            tail = " ".join(text.decode("utf-8", "replace").split())[-_TAIL:] or "it printed nothing"
            raise ClipError(Reason.CRASHED, f"the process of {self.target} ended with {process.returncode}: {tail}")
        answer = json.loads(line)
        if "error" in answer:
            raise ClipError(Reason.METHOD_FAILED, f"{self.target}: {answer['error']}")
        return dict(answer)

    def _read_line(self, process: subprocess.Popen[bytes], deadline_s: float) -> bytes:
        """The next line from the child; empty if the child has ended. At the deadline, the child is killed."""
        assert process.stdout is not None
        end = time.monotonic() + deadline_s
        while b"\n" not in self._unread:
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                self._kill()
                raise ClipError(Reason.DEADLINE, f"{self.target} took over {deadline_s:g} s and was killed")
            part = process.stdout.read1(1 << 16)  # type: ignore[attr-defined]
            if not part:
                return b""
            self._unread += part
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _running_process(self) -> subprocess.Popen[bytes]:
        """The child process. If it is not running, it is started."""
        if self._process is None or self._process.poll() is not None:
            self._unread = b""
            self._folder.mkdir(exist_ok=True)
            with (self._folder / "printed.txt").open("ab") as printed:
                # Python's option -I is not used, because it ignores environment variables that the method can need.
                self._process = subprocess.Popen(
                    [str(self._run.python), str(_HOST), self.target, *map(str, self._run.folders)],
                    cwd=self._run.folders[0] if self._run.folders else None,
                    env={**os.environ, **self._run.environment},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=printed,
                    start_new_session=True,
                )
        return self._process
