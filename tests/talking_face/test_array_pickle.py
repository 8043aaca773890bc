"""Pickles of arrays are read without numpy's or Python's reader, which a file can crash."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from talking_face.pretrained.array_pickle import read_arrays
from talking_face.reasons import UserError
from tests.hostile.pickles import BOMBS, fuzz

# The reader runs in a process of its own with 3 GB of memory, because these files end a reader that trusts them.
READ = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from talking_face.pretrained import i3d
from talking_face.reasons import UserError
for name in sys.argv[1:]:
    try:
        print(name, i3d.read_arrays(Path(name)))
    except UserError as error:
        print("refused:", error)
"""


@pytest.mark.parametrize("protocol", [3, 4])
def test_what_was_written_is_read(tmp_path: Path, protocol: int) -> None:
    rng = np.random.default_rng(0)
    held = {
        "a": {
            "kernel": rng.normal(size=(2, 3, 4)).astype(np.float32),
            "n": [np.arange(3), np.uint8([7]).reshape(1, 1)],
        },
        "f": (np.asfortranarray(rng.normal(size=(3, 5))), np.float16([1, 2]), np.zeros((0, 4)), np.array(2.5)),
        "big-endian": np.arange(4, dtype=">i4"),
        "words": ["x", 1, -5, 2.5, True, None, b"y", 10**30],
    }
    path = tmp_path / "x.ckpt"
    path.write_bytes(pickle.dumps(held, protocol=protocol))
    found = read_arrays(path)
    np.testing.assert_equal(found, held)
    assert found["f"][0].dtype == np.float64 and found["a"]["kernel"].flags.writeable


def test_no_file_ends_the_process(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in BOMBS]
    for path, make in zip(paths, BOMBS.values(), strict=True):
        path.write_bytes(make())
    done = subprocess.run([sys.executable, "-c", READ, *paths], capture_output=True, text=True, timeout=60)
    words = [line.partition(" is no pickle of arrays: ")[0] for line in done.stdout.splitlines()]
    assert done.returncode == 0 and words == [f"refused: {path}" for path in paths], done


def test_changed_pickles_are_read_or_refused() -> None:
    tally = fuzz(500, seed=1)
    assert tally.tried == 500 and tally.clean, tally.examples


def test_damaged_and_foreign_files_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    whole = pickle.dumps({"a": np.zeros((2, 3), np.float32)}, protocol=4)
    for bad in (b"", whole[:-1], whole[:40], b"\x80\x04.", pickle.dumps(print), pickle.dumps({1: 2}), b"PK\3\4"):
        path.write_bytes(bad)
        with pytest.raises(UserError, match="is no pickle of arrays") as caught:
            read_arrays(path)
        assert "\n" not in str(caught.value)
