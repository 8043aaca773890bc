"""Small corpora for tests of the pipeline, drawn once in each session, so that tests need only the checkout."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cmet_pipelines.readers import Discovery
from embedded_corpus.plan import CorpusPlan
from embedded_corpus.writing import write_corpus


@pytest.fixture(scope="session")
def small_mead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clips of 0.8 s of one speaker in MEAD's layout; never changed."""
    root = tmp_path_factory.mktemp("small") / "mead"
    write_corpus(
        CorpusPlan("mead", speakers=1, seconds=0.8, only=("/neutral/", "/happy/")), root, workers=0, quiet=True
    )
    return root


@pytest.fixture(scope="session")
def unaccounted() -> Callable[[Path, Discovery], list[str]]:
    """Files below a root, and members of tars there, that a discovery does not mention, or names as a video twice.

    A correct reader gives an empty list. Tars are listed by unpacking them in memory, independently of the reader.
    """

    def check(root: Path, found: Discovery) -> list[str]:
        def shown(source: object) -> str:
            return str(source).removeprefix(f"{root.resolve()}/").removeprefix(f"{root}/")

        videos = Counter(shown(clip.video) for clip in found.clips)
        left_out = [skip.clip for skip in found.skipped if skip.clip]
        sounds = {shown(clip.audio) for clip in (*found.clips, *left_out) if clip.audio}
        skipped = {shown(skip.path) for skip in found.skipped}
        return sorted(
            [f"{name}: not mentioned" for name in _unmentioned(root, videos.keys() | sounds | skipped)]
            + [f"{name}: a clip {count} times" for name, count in videos.items() if count > 1]
            + [f"{name}: a clip, and skipped" for name in videos.keys() & skipped]
            + [f"{name}: skipped without a reason" for name in (s.path for s in found.skipped if not s.detail.strip())]
            + [note for note in found.notes if "neither part of a clip nor skipped" in note]
        )

    return check


@pytest.fixture(scope="session")
def unaccounted_in_ledger() -> Callable[[Path, Path], list[str]]:
    """The same for a ledger: (root, shard set) to the files that the ledger does not mention."""

    def check(root: Path, out: Path) -> list[str]:
        rows = pq.read_table(out / "ledger.parquet").to_pylist()
        silent = [f"{row['source']}: no reason" for row in rows if row["status"] != "kept" and not row["detail"]]
        mentioned = {row["source"] for row in rows} | {row["audio_source"] for row in rows}
        return sorted(_unmentioned(root, mentioned - {None})) + silent

    return check


def _unmentioned(root: Path, mentioned: set[str]) -> set[str]:
    archives = {name[:at] for name in mentioned for at, char in enumerate(name) if char == "!"}
    there = {
        name
        for path in root.rglob("*")
        if path.is_symlink() or not path.is_dir()
        for name in _with_members(path.relative_to(root).as_posix(), path)
    }
    return there - mentioned - archives


def _with_members(name: str, file: Path | io.BytesIO) -> Iterator[str]:
    yield name
    if not name.endswith(".tar") or (isinstance(file, Path) and not file.is_file()):
        return
    try:
        with tarfile.open(None if isinstance(file, io.BytesIO) else file, "r:", fileobj=_bytes(file)) as archive:
            while (member := archive.next()) is not None and member.size >= 0:
                if member.isdir():
                    continue
                inner = archive.extractfile(member) if member.isfile() else None
                yield from _with_members(f"{name}!{member.name}", io.BytesIO(inner.read() if inner else b""))
    except (tarfile.TarError, OSError):
        return


def _bytes(file: Path | io.BytesIO) -> io.BytesIO | None:
    return file if isinstance(file, io.BytesIO) else None
