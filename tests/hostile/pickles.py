"""Pickles that crash, fill or block a reader that trusts them, and a fuzzer of the reader of weights.

    python -m tests.hostile.pickles --tries 4000 --seed 0

Each try changes a whole pickle of arrays, or one of BOMBS, at a few places, and reads it in a child process.
"""

from __future__ import annotations

import argparse
import pickle
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from talking_face.pretrained.array_pickle import read_arrays
from talking_face.reasons import UserError
from tests.hostile.tally import Tally, report

_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntC\x01btR"
_SHARE = 250  # files per child process


def _array(shape: bytes, kind: bytes, data: bytes) -> bytes:
    """The instructions for one array: shape as the instructions for a tuple, type as instructions, data as bytes."""
    return _ARRAY + b"(K\x01" + shape + kind + b"\x89B" + struct.pack("<I", len(data)) + data + b"tb"


def _type(name: str, state: bytes = b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00") -> bytes:
    return b"cnumpy\ndtype\n(V" + name.encode() + b"\n\x89\x88tR(K\x03V<\n" + state + b"tb"


def _addresses() -> bytes:
    """An array of objects whose flags say that its bytes are plain: each 8 bytes are an address in the process."""
    return b"\x80\x04" + _array(b"(K\x02t", _type("O8"), b"A" * 16) + b"."


def _shape(*sizes: int) -> Callable[[], bytes]:
    longs = b"(" + b"".join(b"\x8a\x10" + n.to_bytes(16, "little", signed=True) for n in sizes) + b"t"
    return lambda: b"\x80\x04" + _array(longs, _type("f4"), b"\0" * 16) + b"."


def _laughs() -> bytes:
    """A list of lists of lists, in which each level has the level before it 30 times."""
    out = b"\x80\x04]q\x00"
    for level in range(19):
        out += b"](" + b"h" + bytes([level]) + (b"h" + bytes([level])) * 29 + b"eq" + bytes([level + 1])
    return out + b"."


# By name, a function that returns the bytes of the file.
BOMBS: dict[str, Callable[[], bytes]] = {
    "addresses": _addresses,
    "memo-of-68-GB": lambda: b"\x80\x04Nr\xff\xff\xff\xffN.",
    "bytes-of-4-GB": lambda: b"\x80\x04B\xff\xff\xff\xffx.",
    "bytearray-of-2**60": lambda: b"\x80\x05\x96" + struct.pack("<Q", 1 << 60) + b".",
    "hash-of-nested-tuples": lambda: b"\x80\x04}N" + b"\x85" * 300_000 + b"Ns.",
    "nested-lists": lambda: b"\x80\x04" + b"]" * 300_000 + b"a" * 299_999 + b".",
    "list-in-itself": lambda: b"\x80\x04]q\x00h\x00a.",
    "laughs": _laughs,
    "same-bytes-many-times": lambda: (
        b"\x80\x04C\xff" + b"\0" * 255 + b"q\x000" + b"](" + (
            _ARRAY + b"(K\x01(K\xfft" + _type("u1") + b"\x89h\x00tb") * 2000 + b"e."
    ),
    "shape-overflows": _shape(1 << 62, 4),
    "shape-negative": _shape(-1, -4),
    "shape-wraps-to-16": _shape(1 << 32, 1 << 32, 4),
    "wrong-count": _shape(5),
    "type-object": lambda: b"\x80\x04" + _array(b"(K\x02t", _type("O"), b"A" * 16) + b".",
    "type-void": lambda: b"\x80\x04" + _array(b"(K\x02t", _type("V8"), b"A" * 16) + b".",
    "type-with-subtype": lambda: b"\x80\x04" + _array(
        b"(K\x01t", _type("V16", b"cnumpy\ndtype\n(VO\n\x89\x88tR(K\x02t\x86NNK\x10K\x08K\x00"), b"A" * 16) + b".",
    "state-of-a-class": lambda: b"\x80\x04cnumpy\nndarray\n}b.",
    "state-of-a-function": lambda: b"\x80\x04cnumpy.core.multiarray\n_reconstruct\nN}V__defaults__\n)s\x86b.",
    "runs-code": lambda: b"\x80\x04cos\nsystem\n(Vtouch ran\ntR.",
}  # fmt: skip


def whole() -> bytes:
    """A pickle of arrays in containers, as weights are stored."""
    rng = np.random.default_rng(0)
    arrays = {f"layer_{k}": {"kernel": rng.normal(size=(k + 1, 3)).astype(np.float32)} for k in range(4)}
    return pickle.dumps({"params": arrays, "stats": [np.arange(3), np.asfortranarray(np.eye(3))]}, protocol=4)


def changed(data: bytes, rng: random.Random) -> bytes:
    """The bytes with 1 to 8 changes: other bits, bytes, numbers, instructions; parts left out or repeated."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(out) or 1)
        kind = rng.randrange(6)
        if kind == 0 and out:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at : at + 1] = rng.randbytes(rng.randint(1, 4))
        elif kind == 2:
            out[at : at + 4] = struct.pack("<I", rng.choice((0, 1, 255, 1 << 31, (1 << 32) - 1)))
        elif kind == 3:
            del out[at : at + rng.randint(1, 40)]
        elif kind == 4:
            out[at:at] = out[at : at + rng.randint(1, 40)]
        else:
            out[at:at] = rng.choice((b"R", b"b", b"s", b"u", b"t", b"(", b"\x81", b"\x93", b"h\x01", b"}", b"\x85" * 9))
    return bytes(out)


def _read_files(names: list[str]) -> None:
    """In the child process: read each file, and print one line for each, before and after."""
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
    for name in names:
        print("reads", name, flush=True)
        try:
            read_arrays(Path(name))
        except UserError:
            continue


def fuzz(tries: int, seed: int) -> Tally:
    """Reads `tries` changed pickles. A crash is a signal, hung is over 60 s for 250 files."""
    rng, tally = random.Random(seed), Tally("pickles of weights")
    seeds = [whole(), *(make() for name, make in BOMBS.items() if "nested" not in name)]
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for k in range(tries):
            path = Path(folder) / f"{seed}-{k}.ckpt"
            path.write_bytes(changed(seeds[0] if k % 2 else rng.choice(seeds), rng))
            names.append(str(path))
        while names:
            share, names = names[:_SHARE], names[_SHARE:]
            read = _in_a_child(share, tally)
            names = share[read:] + names  # a fault ends the child: the files after it are read by the next child
    return tally


def _in_a_child(share: list[str], tally: Tally) -> int:
    """Reads files in a child process. Counts them, and a fault of the last. Returns the number of files read."""
    command = [sys.executable, "-m", "tests.hostile.pickles", "--read", *share]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        out, status, words = done.stdout, done.returncode, done.stderr
    except subprocess.TimeoutExpired as error:
        out, status, words = (error.stdout or b"").decode(), None, ""
    read = max(out.count("reads "), 1)
    tally.tried += read
    if status is None:
        tally.fault("hung", share[read - 1])
    elif status < 0:
        tally.fault("crashed", f"{share[read - 1]}: {signal.Signals(-status).name}")
    elif status:
        tally.fault("traceback", f"{share[read - 1]}: {words.strip().splitlines()[-1][:200]}")
    return read


def main() -> int:
    """Runs the fuzzer and prints its tally; with --read, reads the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--read", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read is not None:
        _read_files(options.read)
        return 0
    return report([fuzz(options.tries, options.seed)])


if __name__ == "__main__":
    sys.exit(main())
