"""Tars are read in place: whole, nested, cut, and in parts, with every member's bytes; every file is accounted for."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cmet_pipelines.readers.archives import files
from cmet_pipelines.readers.base import Discovery, Found
from talking_face.clip import Clip
from talking_face.media.source import open_source
from talking_face.reasons import Reason

Unaccounted = Callable[[Path, Discovery], list[str]]


def _content(name: str) -> bytes:
    return random.Random(name).randbytes(1 + len(name) * 97 % 3000)


def _tar(*names: str, **members: bytes) -> bytes:
    """A tar of files with their `_content`, then of `members` by name."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in [(name, _content(name)) for name in names] + list(members.items()):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _read(root: Path) -> tuple[dict[str, Found], Discovery]:
    """(files by shown name, each checked against its content; the skipped files)."""
    into = Discovery()
    found = {file.name: file for file in files(root.resolve(), into)}
    for name, file in found.items():
        with open_source(file.source) as opened:
            data = opened.read()
        assert data == _content(name.rpartition("!")[2]), name
        clip = Clip(clip_id=name, dataset="x", speaker="x", video=file.source)
        into.clips.append(clip)
    return found, into


def _reasons(into: Discovery) -> dict[str, Reason]:
    return {skip.path: skip.reason for skip in into.skipped}


def test_nested_tars_are_ranges_of_the_outer_file(tmp_path: Path, unaccounted: Unaccounted) -> None:
    inner = _tar("x/1.mp4", "x/2.mp4")
    deep = _tar("c", **{"b.tar": _tar(**{"a.tar": inner})})
    (tmp_path / "W021").mkdir()
    (tmp_path / "W021" / "video.tar").write_bytes(_tar("top.mp4", **{"video/1.tar": inner, "deep.tar": deep}))
    found, into = _read(tmp_path)
    assert set(found) == {
        "W021/video.tar!top.mp4",
        "W021/video.tar!video/1.tar!x/1.mp4",
        "W021/video.tar!video/1.tar!x/2.mp4",
        "W021/video.tar!deep.tar!c",
        "W021/video.tar!deep.tar!b.tar!a.tar!x/1.mp4",
        "W021/video.tar!deep.tar!b.tar!a.tar!x/2.mp4",
    }
    assert found["W021/video.tar!video/1.tar!x/2.mp4"].parts == ("W021", "video", "x", "2.mp4")
    assert not into.skipped and not unaccounted(tmp_path, into)


def test_nesting_ends_somewhere(tmp_path: Path) -> None:
    data = _tar("a")
    for _ in range(9):
        data = _tar(**{"x.tar": data})
    (tmp_path / "x.tar").write_bytes(data)
    found, into = _read(tmp_path)
    assert not found and "deep" in into.skipped[0].detail


@pytest.mark.parametrize(
    "names",
    [
        ["lrs2_v1_partaa", "lrs2_v1_partab", "lrs2_v1_partac", "lrs2_v1_partad"],
        ["video.tar.part1", "video.tar.part2", "video.tar.part3", "video.tar.part4"],
        ["video.tar.000", "video.tar.001", "video.tar.002", "video.tar.003"],
    ],
)
def test_a_tar_in_parts(names: list[str], tmp_path: Path, unaccounted: Unaccounted) -> None:
    whole = _tar("m/1", "m/2", "m/3", **{"in.tar": _tar("m/4", "m/5")})
    cuts = [0, 700, 701, 2600, len(whole)]  # inside a header, a part of one byte, inside data
    for name, start, end in zip(names, cuts, cuts[1:], strict=False):
        (tmp_path / name).write_bytes(whole[start:end])
    found, into = _read(tmp_path)
    assert [name.removeprefix(names[0]) for name in found] == ["!m/1", "!m/2", "!m/3", "!in.tar!m/4", "!in.tar!m/5"]
    assert set(_reasons(into)) == set(names[1:]) and not unaccounted(tmp_path, into)

    (tmp_path / names[2]).unlink()  # a part is lost: the parts before it are used, those after it are reported
    found, into = _read(tmp_path)
    reasons = _reasons(into)
    assert not found and reasons[names[3]] is Reason.MISSING_FILE and reasons[names[0] + "!m/1"] is Reason.TRUNCATED
    assert not unaccounted(tmp_path, into)


def test_cut_anywhere(tmp_path: Path, unaccounted: Unaccounted) -> None:
    path = tmp_path / "a.tar"
    whole = _tar("1", **{"in.tar": _tar("2", "3")}) + b""
    path.write_bytes(whole)
    ends = {name: file.source.offset + file.source.size for name, file in _read(tmp_path)[0].items()}  # type: ignore[operator]
    for size in range(0, len(whole) - 10240 + 4096, 333):
        path.write_bytes(whole[:size])
        found, into = _read(tmp_path)
        assert set(found) == {name for name, end in ends.items() if end <= size}, size
        reasons = {skip.reason for skip in into.skipped}
        assert (
            reasons & {Reason.TRUNCATED, Reason.EMPTY_FILE, Reason.NOT_MEDIA} or size >= len(whole.rstrip(b"\0")) + 512
        )
        assert not unaccounted(tmp_path, into), size


def test_nothing_outside_is_read_and_nothing_is_lost(tmp_path: Path, unaccounted: Unaccounted) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        for name in ("../up.mp4", "/etc/abs.mp4", "a/../../b.mp4", "._a.mp4", "folder/"):
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            tar.addfile(info)
        for kind, target in ((tarfile.SYMTYPE, "/etc/passwd"), (tarfile.LNKTYPE, "../x"), (tarfile.CHRTYPE, "")):
            info = tarfile.TarInfo(f"link{kind!r}.mp4")
            info.type, info.linkname = kind, target
            tar.addfile(info)
    (tmp_path / "zeros.tar").write_bytes(bytes(10240))
    (tmp_path / "empty.tar").touch()
    (tmp_path / "page.tar").write_text("<html>quota exceeded</html>" * 100)
    (tmp_path / "pointer.tar").write_text("version https://git-lfs.github.com/spec/v1\n")
    with tarfile.open(tmp_path / "MELD.Raw.tar", "w:gz") as tar:  # compressed in spite of its name
        tar.addfile(tarfile.TarInfo("x.mp4"))
    (tmp_path / "M003.zip").write_bytes(b"PK\x03\x04" + bytes(100))
    (tmp_path / "lone_partac").write_bytes(b"x")
    negative = bytearray(_tar("1", "2"))
    negative[124:136] = b"\xff" * 12  # a size of -1, with its checksum
    negative[148:156] = b" " * 8
    negative[148:156] = b"%06o\0 " % sum(negative[:512])
    (tmp_path / "loop.tar").write_bytes(negative)
    found, into = _read(tmp_path)
    reasons = _reasons(into)
    assert not found and not unaccounted(tmp_path, into)
    assert len([path for path in reasons if path.startswith("bad.tar!")]) == 7
    assert reasons["zeros.tar"] is reasons["empty.tar"] is Reason.EMPTY_FILE
    assert reasons["page.tar"] is Reason.NOT_MEDIA and reasons["pointer.tar"] is Reason.LFS_POINTER
    assert reasons["lone_partac"] is Reason.MISSING_FILE and "loop.tar" in reasons
    details = {skip.path: skip.detail for skip in into.skipped}
    assert "tar -xzf MELD.Raw.tar" in details["MELD.Raw.tar"] and "unzip M003.zip" in details["M003.zip"]
