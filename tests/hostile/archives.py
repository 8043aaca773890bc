"""Finds the clips of folders with damaged tars and damaged label tables, in this process.

    python -m tests.hostile.archives --tries 2000 --seed 0

A try is silently wrong if a file under the folder is neither a clip nor in the list of skipped files, or if a member is
read outside its archive. A traceback is any error other than UserError. A try may take 5 seconds.
"""

from __future__ import annotations

import argparse
import io
import random
import signal
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cmet_pipelines.readers import discover
from talking_face.reasons import UserError
from tests.hostile.tally import Tally, report

LONGEST_TRY = 5  # s

_CELLS = (
    *("", "nan", "3.0", "ANG", "high", "1e400", "-7", "a" * 200_000, '"', '""', "x\ny", "\0", "=1+1", "../../etc"),
    *("\ud800", "\udce9.mp4", "é", "C:\\d\\a.mp4", "a.mp4", "A", "clips/x", "9" * 400, ",", ";", "\t", "\u2028"),
)


def damaged_tar(rng: random.Random) -> bytes:
    """A small tar of a random format in which bytes, header fields or whole blocks are changed."""
    out = io.BytesIO()
    form = rng.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for _ in range(rng.randint(1, 4)):
            info = tarfile.TarInfo(
                rng.choice(("a.mp4", "b" * 60 + "/" + "b" * 90 + ".mp4", "é.mp4", "in.tar", "../x.mp4"))
            )
            info.size = rng.choice((0, 1, 511, 512, 3000))
            info.type = rng.choice((tarfile.REGTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.GNUTYPE_SPARSE, b"Z"))
            if form == tarfile.PAX_FORMAT and rng.random() < 0.5:
                key = rng.choice(("size", "path", "GNU.sparse.major", "GNU.sparse.map", "hdrcharset"))
                info.pax_headers = {key: rng.choice(("1", "9" * 30, "-1", "x", "\0", "1,2,3"))}
            archive.addfile(info, io.BytesIO(rng.randbytes(info.size)))
    data = bytearray(out.getvalue() * rng.choice((1, 1, 2)))
    for _ in range(rng.randint(0, 3)):
        header = 512 * rng.randrange(max(1, len(data) // 512 - 20))
        kind = rng.random()
        if kind < 0.3:
            data[rng.randrange(len(data))] = rng.randrange(256)
        elif kind < 0.8:
            first, last = rng.choice(((124, 136), (156, 157), (0, 100), (148, 156), (257, 265), (345, 500), (482, 483)))
            data[header + first : header + last] = rng.choice((b"\xff", b"\x80", b"7", b"\0", b"1")) * (last - first)
            _sign(data, header)
        elif kind < 0.9:
            del data[rng.randrange(len(data)) :]
        else:
            data[header:header] = rng.randbytes(512)
        data = data or bytearray(b"x")
    return bytes(data)


def _sign(data: bytearray, at: int) -> None:
    """Writes the right checksum into a header."""
    if len(data) >= at + 512:
        data[at + 148 : at + 156] = b" " * 8
        data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])


def damaged_table(rng: random.Random) -> bytes:
    """A label table with strange cells, separators, encodings and columns."""
    columns = ["file", *rng.sample(("emotion", "intensity", "speaker", "clip_id", "audio", "split", "file", ""), 4)]
    names = ["a.mp4", "b.mp4", "c/d.mp4"]
    lines = [columns] + [[name, *(rng.choice(_CELLS) for _ in columns[1:])] for name in names]
    if rng.random() < 0.5:
        lines[rng.randrange(len(lines))][rng.randrange(2)] = rng.choice(_CELLS)
    text = "\r\n".join(rng.choice((",", ",", ",", ";")).join(line) for line in lines)
    if rng.random() < 0.2:
        return text.encode("utf-16", "replace")
    data = bytearray(text.encode("utf-8", "replace" if rng.random() < 0.5 else "surrogatepass"))
    if rng.random() < 0.3 and data:
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


@contextmanager
def _limited() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LONGEST_TRY)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _try(tally: Tally, seed: int, folder: Path, file: str, data: bytes) -> None:
    """Finds the clips of a folder that holds `file` with the damaged bytes."""
    tally.tried += 1
    (folder / file).write_bytes(data)
    try:
        with _limited():
            found = discover("clips", folder)
    except UserError as error:
        if "\n" in str(error):
            tally.fault("traceback", f"seed {seed}: a message of several lines: {error}")
        return
    except TimeoutError:
        tally.fault("hung", f"seed {seed}")
        return
    except Exception as error:
        tally.fault("traceback", f"seed {seed}: {error!r}")
        return
    sources = [clip.video for clip in found.clips if clip.video.member is not None]
    if any((source.offset or 0) + (source.size or 0) > len(data) for source in sources):
        tally.fault("silently_wrong", f"seed {seed}: a member outside its archive")
    used = {str(clip.video) for clip in found.clips} | {f"{folder}/{skip.path}" for skip in found.skipped}
    lost = [name for name in ("a.mp4", "b.mp4", "c/d.mp4", file) if not any(f"{folder}/{name}" in one for one in used)]
    if lost or any("neither part of a clip" in note for note in found.notes):
        tally.fault("silently_wrong", f"seed {seed}: {lost} without a row")
    texts = [text for clip in found.clips for text in (clip.clip_id, clip.speaker, clip.emotion or "")]
    if not all(text.isprintable() for text in (*texts, *found.notes, *(skip.detail for skip in found.skipped))):
        tally.fault("silently_wrong", f"seed {seed}: a text that cannot be printed")


def run(tries: int, seed: int) -> list[Tally]:
    """`tries` damaged tars and `tries` damaged label tables."""
    kinds: dict[str, tuple[str, Callable[[random.Random], bytes]]] = {
        "tars": ("day.tar", damaged_tar),
        "label tables": ("labels.csv", damaged_table),
    }
    tallies = []
    for kind, (file, make) in kinds.items():
        tally = Tally(kind)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name).resolve()
            (folder / "c").mkdir()
            for video in ("a.mp4", "b.mp4", "c/d.mp4"):
                (folder / video).write_bytes(b"video")
            for number in range(seed, seed + tries):
                _try(tally, number, folder, file, make(random.Random(f"{kind} {number}")))
        tallies.append(tally)
    return tallies


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    return report(run(given.tries, given.seed))


if __name__ == "__main__":
    raise SystemExit(main())
