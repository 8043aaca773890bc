"""Runs preprocessing in environments that lack something, and from scripts of every form.

    python -m tests.hostile.faults --tries N --seed S

There are 22 environments; N of them are drawn. In each, a run must end with the right shard set, or with one line and a
status other than 0. It must leave no process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from cmet_pipelines.preprocess import preprocess
from embedded_corpus.plan import CorpusPlan
from embedded_corpus.writing import write_corpus
from talking_face.execution.options import RunOptions
from tests.hostile.tally import MARK, Ended, Tally, alive, report

_TIMEOUT_S = 240.0

# Environment -> the shell line that runs the command, which is in "$@".
SHELLS = {
    "40 open files": 'ulimit -n 40; exec "$@"',
    "20 open files": 'ulimit -n 20; exec "$@"',
    "60 processes": 'ulimit -u 60; exec "$@"',  # without effect for root
    "3 GB of addresses": 'ulimit -v 3000000; exec "$@"',
    "files of 50 kB": 'ulimit -f 50; exec "$@"',
    "stack of 256 kB": 'ulimit -s 256; exec "$@"',
    "no TMPDIR": 'TMPDIR=/nonexistent exec "$@"',
    "TMPDIR cannot be written": 'TMPDIR=/proc exec "$@"',
    "HOME cannot be written": 'HOME=/proc exec "$@"',
    "no HOME": 'unset HOME; exec "$@"',
    "no PATH": 'PATH= exec "$@"',
    "ASCII only": 'LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 exec "$@"',
    "no standard input": 'exec "$@" <&-',
    "no standard output": 'exec "$@" >&-',
    "no standard streams": 'exec "$@" <&- >&- 2>&-',
    "standard output on a full disk": 'exec "$@" >/dev/full',
    "nobody reads the output": 'set -o pipefail; "$@" | true',
    "the working directory is gone": 'mkdir gone; cd gone; rmdir ../gone; exec "$@"',
}
# Form of a script -> how it calls `work`. None of them has a main guard.
SCRIPTS = {
    "a script": "work()",
    "a script on standard input": "work()",
    "a thread": "import threading\nt = threading.Thread(target=work)\nt.start()\nt.join()",
    "a running event loop": "import asyncio\nasync def main():\n    work()\nasyncio.run(main())",
}
_WORK = """
from cmet_pipelines.preprocess import preprocess
from talking_face.execution.options import RunOptions
def work():
    preprocess("mead", {root!r}, {out!r}, run=RunOptions(2, quiet=True))
"""


def run_shell(line: str, command: Sequence[str], folder: Path, stdin: str = "") -> tuple[Ended, list[int]]:
    """Runs the command by a shell line. Returns how it ended, and the processes that it left."""
    mark, started = uuid.uuid4().hex, time.monotonic()
    process = subprocess.Popen(
        ["bash", "-c", line, "bash", *command],
        cwd=folder,
        env={**os.environ, MARK: mark},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        text, _ = process.communicate(stdin.encode(), timeout=_TIMEOUT_S)
        hung = False
    except subprocess.TimeoutExpired:
        process.kill()
        text, _ = process.communicate()
        hung = True
    ended = Ended(process.returncode, text.decode("utf-8", "replace"), time.monotonic() - started, hung)
    deadline = time.monotonic() + 10
    while (left := alive(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return ended, left


def check(kind: str, root: Path, folder: Path, wanted: str) -> Tally:
    """Runs preprocessing in one environment. `wanted` is the digest of the right shard set."""
    tally, out = Tally(kind), folder / "out"
    if kind in SCRIPTS:
        script = folder / "script.py"
        script.write_text(_WORK.format(root=str(root), out=str(out)) + SCRIPTS[kind])
        on_input = "input" in kind
        command = [sys.executable, "-" if on_input else str(script)]
        ended, left = run_shell('exec "$@"', command, folder, script.read_text() if on_input else "")
    else:
        command = [sys.executable, "-m", "cmet_eval.cli", "preprocess", "mead", str(root), str(out), "--workers", "2"]
        ended, left = run_shell(SHELLS[kind], command, folder)
    tally.add(ended, kind)
    if ended.status == 0 and _digest(out) != wanted:
        tally.fault("silently_wrong", f"status 0, but the shard set is {_digest(out) or 'absent'}: {ended.text[-200:]}")
    if left:
        tally.fault("orphans", f"{len(left)} processes")
    return tally


def _digest(out: Path) -> str:
    """The digest of a finished shard set; empty if there is none."""
    card = out / "dataset.json"
    return str(json.loads(card.read_text()).get("digest", "")) if card.is_file() else ""


def main() -> int:
    """The command line of this program. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=len(SHELLS) + len(SCRIPTS))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    kinds = [*SHELLS, *SCRIPTS]
    chosen = set(random.Random(given.seed).sample(kinds, min(given.tries, len(kinds))))
    with tempfile.TemporaryDirectory() as name:
        root, folder = Path(name) / "corpus", Path(name)
        write_corpus(CorpusPlan("mead", speakers=1, seconds=0.8, only=("/neutral/",)), root, workers=0, quiet=True)
        wanted = preprocess("mead", root, folder / "right", run=RunOptions(workers=0, quiet=True)).digest
        tallies = []
        for number, kind in enumerate(kind for kind in kinds if kind in chosen):
            (folder / str(number)).mkdir()
            tallies.append(check(kind, root, folder / str(number), wanted))
    return report(tallies)


if __name__ == "__main__":
    sys.exit(main())
