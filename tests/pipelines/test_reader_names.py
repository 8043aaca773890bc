"""Names on disk and in tars are bytes: every name gives a printable id, finds its label, and reaches the ledger."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from cmet_pipelines.preprocess import preprocess
from cmet_pipelines.processing import ProcessingSettings
from cmet_pipelines.readers import Discovery, discover
from cmet_pipelines.shards import ShardSet
from talking_face.reasons import Reason
from tests.pipelines.run_options import QUIET

# Name on disk, name in the label file, clip_id after `clips/`.
NAMES = [
    (b"caf\xe9.mp4", "café.mp4".encode(), r"caf\xe9"),
    (b"bytes\xe9.mp4", b"bytes\xe9.mp4", r"bytes\xe9"),
    ("女孩.mp4".encode("gbk"), "女孩.mp4".encode(), "Ů\\xba\\xa2"),
    (b"a!b.mp4", b"a!b.mp4", "a!b"),
    (b"new\nline.mp4", b'"new\nline.mp4"', r"new\nline"),
    (b"tab\tname.mp4", b"TAB\tNAME", r"tab\tname"),
    (b'it\'s "q".mp4', b'"it\'s ""q"".mp4"', 'it\'s "q"'),
    (b"-rf.mp4", b"-rf.mp4", "-rf"),
    (b"x" * 236 + b".mp4", b"x" * 236, "x" * 236),
    ("日本語か\u3099.mp4".encode(), "日本語が.mp4".encode(), "日本語が"),
    ("é.mp4".encode(), "e\u0301.mp4".encode(), "é"),
    ("😀.mp4".encode(), "😀.mp4".encode(), "😀"),
    (b"end.mp4 ", b"end.mp4", "end"),
    (b"d\xe9/c.mp4", b"C:\\data\\d\xe9\\C.MP4", r"d\xe9/c"),
]


def _labelled(root: Path, content: bytes, names: list[tuple[bytes, bytes, str]]) -> None:
    for name, _, _ in names:
        path = root / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    rows = [b"file,take", *(row + b",t%d" % index for index, (_, row, _) in enumerate(names))]
    (root / "labels.csv").write_bytes(b"\n".join(rows))


def test_names_of_every_kind_keep_their_clip_and_their_label(tmp_path: Path) -> None:
    _labelled(tmp_path, b"", NAMES)
    found = discover("clips", tmp_path)
    assert {clip.clip_id: clip.take for clip in found.clips} == {
        f"clips/{clip_id}": f"t{index}" for index, (_, _, clip_id) in enumerate(NAMES)
    }
    assert [skip.path for skip in found.skipped] == ["labels.csv"]
    shown = [str(clip.video) + clip.clip_id + clip.speaker + clip.take for clip in found.clips] + found.notes
    assert all(text.isprintable() for text in shown)
    assert f"{len(NAMES)} of {len(NAMES)} rows name a video" in found.notes[-1] + "".join(found.notes)


def test_the_run_stores_clips_whose_names_are_not_text(small_mead: Path, tmp_path: Path) -> None:
    video = next((small_mead / "M901").rglob("front/*/*/*.mp4"))
    root, names = tmp_path / "root", [NAMES[index] for index in (0, 2, 3, 4, 13)]
    _labelled(root, video.read_bytes(), names)
    with tarfile.open(root / "day.tar", "w") as archive:
        archive.add(video, os.fsdecode(b"in\xe9.mp4"))
    (root / os.fsdecode(b"out\xff.mp4")).symlink_to(os.fsdecode(b"../\xff.mp4"))
    summary = preprocess("clips", root, tmp_path / "out", ProcessingSettings(require_audio=False), run=QUIET)
    shards = ShardSet(summary.out)
    assert summary.kept == 6 and set(shards.clips["take"]) == {"t0", "t1", "t2", "t3", "t4", r"in\xe9"}
    sources = set(shards.ledger["source"])
    assert {r"caf\xe9.mp4", "a!b.mp4", r"new\nline.mp4", r"day.tar!in\xe9.mp4", r"out\xff.mp4"} <= sources
    again = preprocess("clips", root, tmp_path / "out", ProcessingSettings(require_audio=False), run=QUIET)
    assert again.computed == 0 and again.digest == summary.digest


def test_two_names_never_share_an_id(tmp_path: Path) -> None:
    for name in (b"caf\xe9.mp4", rb"caf\xe9.mp4", "\u00e9.mp4".encode(), "e\u0301.mp4".encode()):
        (tmp_path / os.fsdecode(name)).write_bytes(b"")
    found = discover("clips", tmp_path)
    assert [clip.clip_id for clip in found.clips] == [r"clips/caf\xe9", "clips/é"]
    assert [skip.reason for skip in found.skipped] == [Reason.DUPLICATE_ID] * 2


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_names_in_tars(form: int, tmp_path: Path) -> None:
    names = [b"caf\xe9.mp4", "日本語.mp4".encode(), b"folder/" * 40 + b"x.mp4", b"a!b.mp4", b"new\nline.mp4"]
    refused = [b"../up.mp4", b"/abs.mp4", b"a/../b.mp4"]
    with tarfile.open(tmp_path / "day.tar", "w", format=form) as archive:
        for name in names + refused:
            info = tarfile.TarInfo(os.fsdecode(name))
            info.size = 4
            archive.addfile(info, io.BytesIO(b"data"))
    (tmp_path / "labels.csv").write_bytes("file,take\nday/café.mp4,latin\nday/日本語,japan\n".encode())
    found = discover("clips", tmp_path)
    takes = {clip.clip_id.removeprefix("clips/day/"): clip.take for clip in found.clips}
    assert len(takes) == len(names) and takes[r"caf\xe9"] == "latin" and takes["日本語"] == "japan"
    assert {"a!b", r"new\nline", "folder/" * 40 + "x"} < takes.keys()
    assert sum(skip.detail == "a name that leaves the archive" for skip in found.skipped) == len(refused)


# -- links and permissions ---------------------------------------------------------------------------------------------


def _mead(root: Path, *actors: str) -> None:
    for actor in actors:
        folder = root / actor / "video" / "front" / "happy" / "level_1"
        folder.mkdir(parents=True)
        (folder / "001.mp4").write_bytes(b"video")


def _ids(found: Discovery) -> set[str]:
    return {clip.clip_id.split("/")[1] for clip in found.clips}


def test_linked_folders_are_counted_and_followed_when_asked(tmp_path: Path) -> None:
    root, store, own = tmp_path / "root", tmp_path / "secret_store", tmp_path / "own"
    _mead(root, "M003")
    _mead(store, "M005", "M007")
    _mead(own, "x")
    for name, target in {
        "M005": store / "M005", "M007": store / "M007", "M008": store / "M005", "loop": root, "up": tmp_path,
        "itself": Path("itself"), "inside": root / "M003", "M009": tmp_path / "gone", "zero.mp4": Path("/dev/zero"),
    }.items():  # fmt: skip
        (root / name).symlink_to(target)
    (store / "M005" / "video" / "deep").symlink_to(own)
    (store / "M007" / "video" / "loop").symlink_to(store / "M007")
    found = discover("mead", root)
    assert _ids(found) == {"M003"}
    note = next(note for note in found.notes if "--follow-links" in note)
    assert note == "4 links of ROOT to other folders or files left out, such as M005; --follow-links reads them"

    from cmet_pipelines.readers.mead import MeadOptions

    found = discover("mead", root, MeadOptions(follow_links=True))
    assert _ids(found) == {"M003", "M005", "M007"}
    assert not any("secret_store" in skip.path + skip.detail for skip in found.skipped)
    assert {str(clip.video).removeprefix(f"{root}/").split("/")[0] for clip in found.clips} == {"M003", "M005", "M007"}
    details = {skip.path: skip.detail for skip in found.skipped}
    assert details["M008"] == "a link to a folder that is read as M005"
    assert "holds this folder" in details["loop"] and "holds this folder" in details["up"]
    assert "leads to itself" in details["itself"] and "read as M003" in details["inside"]
    assert "does not exist" in details["M009"] and "not a regular file" in details["zero.mp4"]
    assert "not directly in ROOT" in details["M005/video/deep"] and "M007/video/loop" in details


def test_a_root_of_links_alone_names_the_option(tmp_path: Path) -> None:
    _mead(tmp_path / "store", "M003", "M005")
    (tmp_path / "root").mkdir()
    for actor in ("M003", "M005"):
        (tmp_path / "root" / actor).symlink_to(tmp_path / "store" / actor)
    command = ("preprocess", "mead", str(tmp_path / "root"), str(tmp_path / "out"), "--workers", "0")
    ended = _run(*command)
    assert ended.returncode == 2 and "2 links left out: give --follow-links to read them" in ended.stderr
    assert "--follow-links" in _run("preprocess", "--help").stdout


def test_linked_actors_are_stored_without_the_target(small_mead: Path, tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"r\xe9")
    root.mkdir()
    (root / "M901").symlink_to(small_mead / "M901")
    out = str(tmp_path / "out")
    command = ("preprocess", "mead", str(root), out, "--follow-links", "--limit", "1", "--workers", "1")
    ended = _run(*command)
    assert ended.returncode == 0 and "Traceback" not in ended.stderr, ended.stderr
    ledger = ShardSet(Path(out)).ledger
    assert all(source.startswith("M901/") for source in ledger["source"])
    stored = (tmp_path / "out" / "dataset.json").read_text("utf-8") + ledger.to_string()
    assert str(small_mead) not in stored and str(tmp_path) not in stored
    assert "nothing to do" in _run(*command).stdout


def _run(*command: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    whole = [*prefix, sys.executable, "-m", "cmet_eval.cli", *command]
    return subprocess.run(whole, capture_output=True, text=True, errors="replace", check=False, timeout=170)


def _without_root_rights() -> tuple[str, ...]:
    """A command prefix without the rights by which root reads every file. Empty for other users."""
    if os.geteuid() != 0:
        return ()
    if not shutil.which("setpriv"):
        pytest.skip("setpriv is absent, and root may read every file: permissions are not tested")
    rights = "-dac_override,-dac_read_search"
    return ("setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}")


def test_folders_and_files_without_read_permission_have_a_row_each(small_mead: Path, tmp_path: Path) -> None:
    video = next((small_mead / "M901").rglob("front/*/*/*.mp4"))
    root, prefix = tmp_path / "root", _without_root_rights()
    for name in ("ann/a.mp4", "ann/b.mp4", "bob/a.mp4", "cat/a.mp4"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, root / name)
    modes = {"ann/b.mp4": 0, "bob": 0, "cat": 0o444}  # 0o444: names can be listed, but files cannot be opened
    for name, mode in modes.items():
        (root / name).chmod(mode)
    command = ("preprocess", "clips", str(root), str(tmp_path / "out"), "--no-require-audio", "--workers", "0")
    try:
        ended = _run(*command, prefix=prefix)
        rows = {row["source"]: row["reason"] for row in ShardSet(tmp_path / "out").ledger.to_dict("records")}
    finally:
        for name in modes:
            (root / name).chmod(0o755)
    assert rows == {"ann/a.mp4": "", "ann/b.mp4": "unreadable", "bob": "unreadable", "cat/a.mp4": "unreadable"}
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert "3 cannot be read, so clips are missing" in ended.stdout and "3 not readable" in ended.stdout
    assert _run(*command).returncode == 0 and len(ShardSet(tmp_path / "out").clips) == 4
