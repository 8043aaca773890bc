"""The child's side of the `python` adapter. A file of its own: standard library and numpy only, no import of the suite.

    PYTHON host.py MODULE:CLASS FOLDER...

Run by the interpreter of the method's own environment, with the method's folders first on the import path, so that its
repository may have a `metrics` or `pipelines` of its own. Reads one JSON line a case from standard input and answers
each with one on a copy of standard output; whatever the method prints goes to standard error.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import traceback
from typing import Any

import numpy as np


class Case:
    """What the method's `generate` gets: the attributes of `cmet_baselines.method.Case`. Asking for an input that
    the method does not declare in `sees` fails."""

    fps = 25.0
    audio_rate = 16000
    size: tuple

    def __init__(self, message: dict) -> None:
        self.__dict__.update(message["plain"])
        self.size = tuple(self.size)
        self.notes: list = []
        self._arrays = message["arrays"]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._arrays:
            raise AttributeError(f"the case has no {name}; if it is an input, add it to `sees`")
        paths = self._arrays[name]
        loaded = (
            [np.load(path, allow_pickle=False) for path in paths]
            if isinstance(paths, list)
            else np.load(paths, allow_pickle=False)
        )
        setattr(self, name, loaded)
        return loaded

    def note(self, text: str) -> None:
        """Record something a reader of the scores should know."""
        self.notes.append(text)


def main() -> None:
    """Load the class, then answer cases until the input ends."""
    target, folders = sys.argv[1], sys.argv[2:]
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: never outlive the worker
        if os.getppid() != parent:
            sys.exit(1)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # The folder of this file stands first on the path and holds `command`, `videos` ...: not the method's business.
    sys.path[0:1] = folders
    method = None
    for line in sys.stdin:
        message = json.loads(line)
        try:
            if method is None:
                module, _, name = target.partition(":")
                method = getattr(importlib.import_module(module), name)()
            if message.get("describe"):
                known = {key: getattr(method, key, None) for key in ("name", "revision", "title")}
                doc = (type(method).__doc__ or "").strip().partition("\n")[0]
                answer = {**known, "sees": sorted(getattr(method, "sees", [])), "summary": doc,
                          "generates": callable(getattr(method, "generate", None))}  # fmt: skip
            else:
                case = Case(message)
                frames = np.ascontiguousarray(method.generate(case))
                np.save(message["output"], frames, allow_pickle=False)
                answer = {"notes": case.notes}
        except MemoryError:
            raise
        except Exception as error:
            traceback.print_exc()
            answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
