"""Tars are read in place: whole, nested, cut, and in parts, with every member's bytes; every file is accounted for."""

from __future__ import annotations

import io
import random
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cmet_pipelines.readers import discover
from cmet_pipelines.readers.archives import files
from cmet_pipelines.readers.base import Discovery, Found
from cmet_pipelines.readers.tar_headers import FILE, FOLDER, members
from talking_face.clip import Clip
from talking_face.media.source import open_source
from talking_face.reasons import Reason
from tests.hostile import archives as hostile_archives

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


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_headers_are_those_that_tarfile_reads(form: int) -> None:
    rng, out = random.Random(form), io.BytesIO()
    names = ["a.mp4", "folder/" * 20 + "b.mp4", "é" * 30, "c/", "/abs", "d" * 100, "e/" + "f" * 99]
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name in names + (["g" * 300, "日本" * 100] if form != tarfile.USTAR_FORMAT else []):
            for kind in (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
                info = tarfile.TarInfo(name)
                info.type, info.size, info.mtime = kind, rng.choice((0, 1, 512, 513)), rng.random() * 1e9
                info.linkname = "l" * rng.choice((5, 100))
                tar.addfile(info, io.BytesIO(bytes(info.size)))
    data = out.getvalue() + out.getvalue()  # `cat a.tar b.tar`
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:", ignore_zeros=True) as tar:
        theirs = [(info.name.rstrip("/"), info.isfile(), info.isdir(), info.offset_data, info.size) for info in tar]
    ours = [
        (member.name.rstrip("/"), member.kind == FILE, member.kind == FOLDER, member.offset, member.size)
        for member in members(io.BytesIO(data), len(data))
    ]
    assert ours == theirs and len(ours) >= 70


def _header(name: bytes, size: bytes = b"0", kind: bytes = b"0", more: int = 0) -> bytes:
    block = bytearray(512)
    block[: len(name)], block[156:157], block[257:265] = name, kind, b"ustar\x0000"
    block[124 : 124 + len(size)], block[482] = size, more
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


EXABYTES = b"\x80" + (8 << 60).to_bytes(11, "big")
GOOD = _tar("1.mp4")[:-9216]  # without its end
PAX_BOMB = b"30 GNU.sparse.numblocks=99999\n" + b"22 GNU.sparse.major=1\n" + b"28 GNU.sparse.name=bomb.mp4\n"


@pytest.mark.parametrize(
    ("hostile", "words"),
    [
        (_header(b"big.mp4", EXABYTES), "ends inside this member"),
        (_header(b"x", EXABYTES, b"x"), "extended header of 9223372036854775808 bytes"),
        (_header(b"x", b"77777777777", b"L"), "a name or extended header of"),
        (_header(b"x", b"10", b"x") + bytes(512) + b"z" * 512, "whose checksum is not a number"),
        (_header(b"x", b"3", b"x") + b"9 x".ljust(512, b"\0"), "a damaged extended header"),
        (_header(b"x", b"%o" % len(PAX_BOMB), b"x") + PAX_BOMB.ljust(512, b"\0") + _header(b"y", b"1000")
         + b"999999999\n".ljust(512, b"1"), "a sparse file in an archive"),
        (_header(b"s.mp4", b"0", b"S", more=1) + (b"1" * 512) * 21_000, "a map of more than"),
        (b"\xff" * 5000, "whose checksum"),
        (_header(b"neg.mp4", b"\xff" * 12), "size is not a number"),
        (_header(b"x", b"0", b"x") * 100, "more than 64 extended headers"),
        (bytes(1024) + b"garbage" * 100, "bytes after its end are not a tar"),
        (_header(b"fifo", kind=b"6"), "a pipe in an archive"),
        (_header(b"dev", kind=b"3") + _header(b"hard", kind=b"1"), "a device in an archive"),
    ],
)  # fmt: skip
def test_a_hostile_header_costs_only_the_rest_of_its_archive(hostile: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(GOOD + hostile)
    (tmp_path / "b.tar").write_bytes(_tar("2.mp4"))
    started = time.monotonic()
    found, into = _read(tmp_path)
    assert set(found) == {"a.tar!1.mp4", "b.tar!2.mp4"}
    assert any(words in skip.detail for skip in into.skipped), into.skipped
    assert all(skip.path.startswith("a.tar") for skip in into.skipped)
    assert time.monotonic() - started < 5


def test_damage_in_the_middle_states_what_is_not_read(tmp_path: Path) -> None:
    data = bytearray(_tar("1", "2", "3", "4"))
    second = tarfile.open(fileobj=io.BytesIO(data)).getmembers()[1].offset  # noqa: SIM115
    data[second + 10] ^= 1
    (tmp_path / "a.tar").write_bytes(data)
    found, into = _read(tmp_path)
    assert set(found) == {"a.tar!1"}
    assert f"broken after 1 whole member, which are used: a header whose checksum is wrong at byte {second:,}" in (
        detail := into.skipped[0].detail
    )
    assert f"{len(data) - second:,} bytes are not read" in detail


def test_archives_of_holes_end_at_once(tmp_path: Path) -> None:
    for name, head in (("zeros.tar", b""), ("good.tar", _tar("1")), ("sparse.tar", _header(b"s", EXABYTES, b"S", 1))):
        with (tmp_path / name).open("wb") as file:
            file.write(head)
            file.truncate(100 << 30)
    started = time.monotonic()
    found, into = _read(tmp_path)
    assert set(found) == {"good.tar!1"} and time.monotonic() - started < 5
    assert set(_reasons(into)) == {"zeros.tar", "good.tar", "sparse.tar", "sparse.tar!s"}


def test_texts_in_a_tar_open_no_file(tmp_path: Path) -> None:
    (tmp_path / "other.mp4").write_bytes(_content("other.mp4"))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, text in (("x.mp4", b"ffconcat version 1.0\nfile other.mp4\n"), ("y.m3u8", b"#EXTM3U\nother.mp4\n")):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
    found = discover("clips", tmp_path)
    assert {clip.clip_id: clip.video.size for clip in found.clips} == {"clips/a/x": 37 - 1, "clips/other": None}
    assert {skip.path: skip.reason for skip in found.skipped} == {"a.tar!y.m3u8": Reason.NOT_A_CLIP}


def test_damaged_tars_and_tables_end_with_a_line_or_a_row() -> None:
    for tally in hostile_archives.run(tries=200, seed=7):
        assert tally.tried == 200 and tally.clean, tally.examples
