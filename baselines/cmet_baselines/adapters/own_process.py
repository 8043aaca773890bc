"""Defines the `python` adapter, which runs a class from another repository in its own process.

This module runs in the parent process, and `host.py` runs in the child process. `HostProcess` is also used for recipes.
Arrays are exchanged as .npy files in a temporary folder. Therefore the method's interpreter needs only numpy, and no
pickle is loaded. What the child answers is code of others: its size, its form and the header of its arrays are checked
before they are used.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cmet_baselines.adapters.command import LONGEST_S, OUTPUT_BYTES, WATCH_S, Variable, check_sizes
from cmet_baselines.adapters.environment import method_environment
from cmet_baselines.method import Case
from talking_face.execution.processes import GuardedProcess
from talking_face.lines import one_line
from talking_face.reasons import ClipError, Reason
from talking_face.scratch import Scratch
from talking_face.user_files import Text

_HOST = Path(__file__).with_name("host.py")
_START_S = 300.0  # time to import the class and to create the method, with weights on a slow disk
_ANSWER_BYTES = 1 << 20  # largest answer of the child, one JSON line
_TAIL = 300  # number of the output's last characters in an error message


class PythonRun(BaseModel):
    """The table `[process]` of a `python` entry: how the class is run. Unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    # The folders of the class's repository. They are first on the import path. The class runs in the first folder.
    folders: tuple[Path, ...] = ()
    python: Path = Path(sys.executable)  # the interpreter of the class's environment, which must have numpy
    # Variables that the class's process receives, and the names of this process's variables that it also receives.
    environment: dict[Variable, Text] = Field(default_factory=dict)
    environment_from: tuple[Variable, ...] = ()
    deadline_s: float = Field(default=600.0, gt=0, le=LONGEST_S)  # per pair


class HostProcess:
    """A child process that holds one object of an outside class. The child and all its processes end with this process.

    Attributes:
        target: the class, as messages name it.
        work: a folder of the child, which is empty at the beginning and removed at the end.
    """

    def __init__(self, target: str, run: PythonRun, setup: Mapping[str, object] | None = None) -> None:
        """Prepare the process; the first request starts it.

        Args:
            target: `module:Class`, or `FILE.py:Class`.
            run: how the class is run.
            setup: JSON values that the class receives as attributes of one object. None: it has no argument.
        """
        self.target, self.deadline_s, self._run, self._setup = target, run.deadline_s, run, setup
        self._guarded: GuardedProcess | None = None
        self._scratch = Scratch()
        self._folder = self._scratch.path
        self.work = self._folder / "work"
        self.work.mkdir()
        atexit.register(self.close)

    def describe(self, log: Path | None = None) -> dict[str, object]:
        """Create the object, and return its members. Raises ClipError if this fails or takes over 300 s.

        Args:
            log: receives what the child prints; None: this is not kept.
        """
        return self._request({"describe": True}, _START_S, log)

    def generate(self, case: Case, *, label: bool) -> np.ndarray:
        """The array that the object returns for the case.

        Args:
            case: the inputs.
            label: whether the object receives the target emotion and its intensity.

        Raises:
            ClipError: method-failed (the message is the method's message), crashed (the child process ended), deadline.
        """
        try:
            arrays = {name: self._save(name, getattr(case, name)) for name in case.offered()}
            plain: dict[str, object] = {"pair_id": case.pair_id, "setting": case.setting, "speaker": case.speaker}
            plain |= {"n_frames": case.n_frames, "size": list(case.size), "seed": case.seed}
            if label:
                plain |= {"target_emotion": case.target_emotion, "intensity": case.intensity}
            self._output.unlink(missing_ok=True)
            if not self._is_running():  # a new child first loads its models, which is not part of the deadline
                self.describe(case.log)
            message = {"plain": plain, "arrays": arrays, "output": str(self._output)}
            answer = self._request(message, self.deadline_s, case.log)
            notes = answer.get("notes")
            case.notes.extend(str(note) for note in (notes if isinstance(notes, list) else ()))
            return read_array(self._output, self.target)
        finally:
            for path in self._folder.glob("*.npy"):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """End the child process and delete the temporary folder."""
        self._end()
        self._scratch.remove()

    def _end(self) -> int | None:
        """Ends the child and all processes that it started. Returns the exit status of the child."""
        if self._guarded is None:
            return None
        guarded, self._guarded = self._guarded, None
        guarded.end()
        return guarded.process.returncode

    @property
    def _output(self) -> Path:
        return self._folder / "output.npy"

    @property
    def _printed(self) -> Path:
        return self._folder / "printed.txt"

    def _save(self, name: str, value: np.ndarray | list[np.ndarray]) -> str | list[str]:
        """Write an input, and return the path of its file. For a list of arrays, return one path per array."""
        if isinstance(value, list):
            return [self._save_array(f"{name}-{i}", item) for i, item in enumerate(value)]
        return self._save_array(name, value)

    def _save_array(self, name: str, array: np.ndarray) -> str:
        path = self._folder / f"{name}.npy"
        np.save(path, array, allow_pickle=False)
        return str(path)

    def _request(self, message: Mapping[str, object], deadline_s: float, log: Path | None) -> dict[str, object]:
        """Send one JSON line to the child and return its answer. The child's printed output is written to `log`."""
        process = self._running_process()
        os.truncate(self._printed, 0)
        try:
            assert process.stdin is not None
            # Each request has the setup, because the child can be a new one.
            whole = {**message, "setup": {**self._setup, "work": str(self.work)} if self._setup is not None else None}
            process.stdin.write(json.dumps(whole).encode() + b"\n")
            process.stdin.flush()
            line = self._read_line(process, deadline_s)
        except BrokenPipeError:
            line = b""
        text = self._printed.read_bytes()
        if log is not None and text:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_bytes(text)
        if not line:
            tail = one_line(text.decode("utf-8", "replace"))[-_TAIL:] or "it printed nothing"
            raise ClipError(Reason.CRASHED, f"the process of {self.target} ended with {self._end()}: {tail}")
        answer = self._parsed(line)
        if "error" in answer:
            raise ClipError(Reason.METHOD_FAILED, f"{self.target}: {answer['error']}")
        return answer

    def _parsed(self, line: bytes) -> dict[str, object]:
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            self._end()
            raise ClipError(Reason.METHOD_FAILED, f"{self.target} wrote to the pipe of its answers")
        return answer

    def _read_line(self, process: subprocess.Popen[bytes], deadline_s: float) -> bytes:
        """The next line from the child; empty if the child has ended. At a limit, the child is ended."""
        assert process.stdout is not None
        end, unread = time.monotonic() + deadline_s, b""
        try:
            while b"\n" not in unread:
                ready, _, _ = select.select([process.stdout], [], [], WATCH_S)
                check_sizes(self.target, self._printed, self._output)
                if time.monotonic() > end:
                    raise ClipError(Reason.DEADLINE, f"{self.target} took over {deadline_s:g} s and was stopped")
                if not ready:
                    continue
                part = process.stdout.read1(1 << 16)  # type: ignore[attr-defined]
                if not part:
                    return b""
                unread += part
                if len(unread) > _ANSWER_BYTES:
                    raise ClipError(Reason.METHOD_FAILED, f"{self.target} answered over {_ANSWER_BYTES >> 20} MB")
        except ClipError:
            self._end()
            raise
        return unread.partition(b"\n")[0]  # the child writes nothing after an answer until the next request

    def _is_running(self) -> bool:
        return self._guarded is not None and self._guarded.process.poll() is None

    def _running_process(self) -> subprocess.Popen[bytes]:
        """The child process. If it is not running, it is started."""
        if self._guarded is None or not self._is_running():
            self._end()
            self._guarded = self._start()
        return self._guarded.process

    def _start(self) -> GuardedProcess:
        run = self._run
        with self._printed.open("ab") as printed:
            try:
                # Python's option -I is not used, because it ignores environment variables that the method can need.
                return GuardedProcess(
                    [str(run.python), str(_HOST), self.target, *map(str, run.folders)],
                    cwd=self.work if self._setup is not None else next(iter(run.folders), None),
                    env=method_environment(os.environ, run.environment, run.environment_from),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=printed,
                )
            except OSError as error:
                raise ClipError(Reason.METHOD_FAILED, f"cannot start {run.python}: {error.strerror}") from None


class OwnProcessMethod:
    """A class from another repository, in a child process.

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
        self._process = HostProcess(target, run or PythonRun(folders=(Path.cwd(),)))
        self.target, self.deadline_s = target, self._process.deadline_s
        about = self._process.describe()
        self.missing_members = [member for member in ("name", "revision") if not isinstance(about.get(member), str)]
        self.missing_members += [] if about.get("generates") else ["generate"]
        self.name, self.revision = str(about.get("name")), str(about.get("revision"))
        self.title, self.summary = str(about.get("title") or ""), str(about.get("summary") or "")
        sees = about.get("sees")
        self.sees = frozenset(map(str, sees if isinstance(sees, list) else ()))

    def generate(self, case: Case) -> np.ndarray:
        """The array that the method returns for the case. Raises the same ClipErrors as `HostProcess.generate`."""
        return self._process.generate(case, label="emotion-label" in self.sees)

    def close(self) -> None:
        """End the child process and delete the temporary folder."""
        self._process.close()


def read_array(path: Path, target: str) -> np.ndarray:
    """The array that a method has saved as .npy. Its header is checked against the size of the file before it is read.

    Raises:
        ClipError: method-failed, the file is not such an array.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(file)
            wanted = math.prod(shape) * dtype.itemsize
            if dtype.hasobject or wanted != size - file.tell() or size > OUTPUT_BYTES:
                raise ValueError(f"{shape} {dtype} in {size} bytes")
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        text = one_line(error, _TAIL)
        raise ClipError(Reason.METHOD_FAILED, f"{target} saved no readable array: {text}") from None
