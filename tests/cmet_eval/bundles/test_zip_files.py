"""Zip files with other content than `cmet-eval submit` writes are refused by the name of their fault."""

from __future__ import annotations

import stat
import struct
import zipfile
from pathlib import Path

import pytest

from cmet_eval.bundles.form import Fault
from tests.cmet_eval.bundles.forging import Run


def packed(folder: Path, target: Path, **more: tuple[zipfile.ZipInfo, bytes]) -> Path:
    """The files of a bundle in a zip file of Python's own, with further members."""
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.write(path, path.relative_to(folder))
        for info, data in more.values():
            archive.writestr(info, data)
    return target


def link_info() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("tables/01/sample/link.mp4")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def compressed_info() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("tables/01/sample/bomb.mp4")
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


ZIPPED: list[tuple[Fault, zipfile.ZipInfo, bytes]] = [
    (Fault.BAD_PATH, zipfile.ZipInfo("../../evil.py"), b""),
    (Fault.BAD_PATH, zipfile.ZipInfo("/etc/passwd"), b""),
    (Fault.BAD_PATH, zipfile.ZipInfo("C:\\evil.py"), b""),
    (Fault.BAD_PATH, zipfile.ZipInfo("tables/01/sample/.."), b""),
    (Fault.LINK, link_info(), b"/etc/passwd"),
    (Fault.TOO_LARGE, compressed_info(), bytes(50_000_000)),  # 48 kB in the file
    (Fault.NOT_CANONICAL, zipfile.ZipInfo("bundle.json"), b"{}"),  # a second file of this name
    (Fault.NOT_CANONICAL, zipfile.ZipInfo("tables/01/sample/last.mp4", (2026, 1, 1, 0, 0, 0)), b""),
]


@pytest.mark.parametrize("fault, info, data", ZIPPED, ids=[f"{fault}-{info.filename}" for fault, info, _ in ZIPPED])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_forged_zip_file_is_refused_by_name(
    fault: Fault, info: zipfile.ZipInfo, data: bytes, bundle: Path, tmp_path: Path, run: Run
) -> None:
    path = packed(bundle, tmp_path / "b.zip", more=(info, data))
    status, _, err = run("verify", path)
    assert (status, err.count("\n")) == (1, 1) and f"is refused, {fault.value}: " in err
    assert not (tmp_path.parent / "evil.py").exists()


def test_other_zip_files_are_refused(bundle: Path, tmp_path: Path, run: Run) -> None:
    path = tmp_path / "b.zip"
    for data, fault in (
        (b"no zip file", Fault.NOT_A_BUNDLE),
        (packed(bundle, path).read_bytes()[:-1], Fault.NOT_A_BUNDLE),  # cut
        (packed(bundle, path).read_bytes() + b"x", Fault.NOT_A_BUNDLE),  # more after its end
        (b"#!/bin/sh\n" + packed(bundle, path).read_bytes(), Fault.NOT_CANONICAL),  # also a script
    ):
        path.write_bytes(data)
        status, _, err = run("verify", path)
        assert (status, err.count("\n")) == (1, 1) and f"is refused, {fault.value}: " in err, (fault, err)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(20_001):
            archive.writestr(f"tables/01/sample/{number}.mp4", b"")
    assert f"is refused, {Fault.TOO_MANY_FILES.value}: " in run("verify", path)[2]
    (tmp_path / "empty").mkdir()
    assert f"is refused, {Fault.NOT_A_BUNDLE.value}: " in run("verify", tmp_path / "empty")[2]


def test_overlapping_files_of_a_zip_are_refused(bundle: Path, tmp_path: Path, run: Run) -> None:
    """Two entries of the list name the same bytes, so that a small zip file becomes a large folder."""
    path = packed(bundle, tmp_path / "b.zip", more=(zipfile.ZipInfo("tables/01/sample/z.mp4"), bytes(100_000)))
    data = bytearray(path.read_bytes())
    end = data.rindex(b"PK\5\6")
    first = int.from_bytes(data[end + 16 : end + 20], "little")
    last = data.rindex(b"PK\1\2")
    entry = data[last:end]
    data[end:end] = entry.replace(b"z.mp4", b"y.mp4")
    end += len(entry)
    count = int.from_bytes(data[end + 10 : end + 12], "little") + 1
    for place, number, size in ((8, count, 2), (10, count, 2), (12, end - first, 4)):
        data[end + place : end + place + size] = number.to_bytes(size, "little")
    path.write_bytes(data)
    status, _, err = run("verify", path)
    assert status == 1 and f"is refused, {Fault.TOO_LARGE.value}: the files of b.zip overlap" in err


def test_an_end_that_contradicts_the_list_of_files_is_refused(bundle: Path, tmp_path: Path, run: Run) -> None:
    """The end of the file states a small list of files, and a second record for large zip files states another one."""
    path = packed(bundle, tmp_path / "b.zip")
    data = path.read_bytes()
    end = len(data) - 22
    disks, count, size, first = data[end + 4 : end + 8], *struct.unpack("<H2L", data[end + 10 : end + 20])
    large = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, first)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    small = struct.pack("<4s4s2H2LH", b"PK\5\6", disks, 1, 1, 46, first, 0)
    for tail in (
        large + locator + small,
        struct.pack("<4s4s2H2LH", b"PK\5\6", disks, count, count, size, first + 1, 0),
    ):
        path.write_bytes(data[:end] + tail)
        status, _, err = run("verify", path)
        assert (status, err.count("\n")) == (1, 1) and f"is refused, {Fault.NOT_A_BUNDLE.value}: " in err
