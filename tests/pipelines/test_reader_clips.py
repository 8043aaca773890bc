"""Plain clips: any container, labels from a checked CSV, members of tars; each file is a clip or has a reason."""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from cmet_pipelines.preprocess import preprocess
from cmet_pipelines.readers import Discovery, discover
from cmet_pipelines.shards import ShardSet
from embedded_corpus.plan import CorpusPlan
from embedded_corpus.writing import write_corpus
from talking_face.reasons import Reason, UserError
from tests.pipelines.run_options import QUIET

Unaccounted = Callable[[Path, Discovery], list[str]]


def _touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"bytes of " + name.encode())


def test_clips_with_and_without_labels(tmp_path: Path) -> None:
    _touch(tmp_path, "ann/a.mkv", "ann/a.wav", "b.mov", "c.mov", "d.webm", "e.mp4", "lonely.wav", "x.txt")
    (tmp_path / "camera_file").write_bytes(b"\0\0\0\x20ftypisom" + bytes(20))
    found = discover("clips", tmp_path)
    speakers = {clip.clip_id: clip.speaker for clip in found.clips}
    assert speakers == {
        "clips/ann/a": "ann",
        **{f"clips/{name}": name for name in ("b", "c", "d", "e", "camera_file")},
    }
    assert found.clips[0].audio and found.clips[0].audio.path.endswith("a.wav")
    assert {skip.path for skip in found.skipped} == {"lonely.wav", "x.txt"}

    (tmp_path / "labels.csv").write_text(
        "\ufefffile,Speaker,emotion,intensity,split,transcript,audio,mood\r\n"
        'b.mov,bob,Joy,2,test,"Hello, you",lonely.wav,odd\r\n'
        "c.mov,bob,sarcastic,,,,,\r\n"
        "d.webm,bob,sad,high,,,,\r\n"
        "e.mp4,bob,sad,1,exam,,,\r\n"
        "gone.mov,bob,sad,1,,,,\r\n"
    )
    found = discover("clips", tmp_path)
    clips = {clip.clip_id: clip for clip in found.clips}
    b = clips["clips/b"]
    assert (b.speaker, b.emotion, b.intensity, b.split, b.transcript) == ("bob", "happy", 2, "test", "Hello, you")
    assert b.audio and b.audio.path.endswith("lonely.wav")
    assert clips["clips/c"].emotion == "sarcastic" and clips["clips/c"].intensity is None
    bad = {skip.path: skip.reason for skip in found.skipped}
    assert bad["d.webm"] == bad["e.mp4"] == Reason.BAD_LABEL and bad["gone.mov"] is Reason.MISSING_FILE
    assert any("mood" in note for note in found.notes)


def test_two_containers_of_one_name_are_one_id(tmp_path: Path) -> None:
    _touch(tmp_path, "a.mkv", "a.mp4")
    found = discover("clips", tmp_path)
    assert len(found.clips) == 1
    assert [(skip.path, skip.reason) for skip in found.skipped] == [("a.mp4", Reason.DUPLICATE_ID)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,speaker\na.mp4,bob\n", r"has no column `file` \(it has: name, speaker\)"),
        ("file;speaker\na.mp4;bob\n", "separate columns by commas"),
        ("", "it has: nothing"),
        ("file,speaker\na.mp4,bob\n./a.mp4,ann\n", r"names 'a\.mp4' twice \(line 3\)"),
        ("file,speaker\n,bob\n", "no file in line 2"),
        ("file,transcript\na.mp4,Hello, you\n", "line 2 has more cells than columns"),
        ("file,speaker\na.mp4,\udcff\n", "not UTF-8"),
    ],
)
def test_labels_that_cannot_be_are_told(text: str, words: str, tmp_path: Path) -> None:
    _touch(tmp_path, "a.mp4")
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(UserError, match=words):
        discover("clips", tmp_path)


def test_labels_find_their_files_however_they_are_spelt(tmp_path: Path) -> None:
    composed, decomposed = "Zo\u00e9.mp4", "Zoe\u0301.mp4"  # as people type it, and as macOS stores it
    _touch(tmp_path, "one/a.mp4", "b.mp4", decomposed, "c.wav")
    (tmp_path / "labels.csv").write_text(
        f"file,speaker,transcript\r\none\\a.mp4,s1,two lines\u0085still one row\r\n{tmp_path / 'b.mp4'},s2,\r\n"
        f",,\r\n{composed},s3,\r\nc.wav,s4,\r\n"
    )
    found = discover("clips", tmp_path)
    assert {clip.video.path.rpartition("/")[2]: clip.speaker for clip in found.clips} == {
        "a.mp4": "s1", "b.mp4": "s2", decomposed: "s3",
    }  # fmt: skip
    assert {skip.path: skip.reason for skip in found.skipped} == {
        "c.wav": Reason.NO_VIDEO,
        "labels.csv": Reason.NOT_A_CLIP,
    }


def test_members_of_tars_are_clips(tmp_path: Path, unaccounted: Unaccounted) -> None:
    loose, root = tmp_path / "loose", tmp_path / "root"
    _touch(loose, "x.mp4", "x.wav", "sub/y.webm", "note.json")
    (loose / "camera").write_bytes(b"\0\0\0\x20ftypisom" + bytes(20))
    for day in ("day1", "day2"):
        (root / "tars").mkdir(parents=True, exist_ok=True)
        with tarfile.open(root / "tars" / f"{day}.tar", "w") as archive:
            archive.add(loose, ".")
    (root / "labels.csv").write_text("file,speaker\ntars/day2/x.mp4,bob\n")
    found = discover("clips", root)
    assert not unaccounted(root, found)
    assert {clip.clip_id: clip.speaker for clip in found.clips} == {
        "clips/tars/day1/camera": "tars/day1",
        "clips/tars/day1/x": "tars/day1",
        "clips/tars/day1/sub/y": "tars/day1/sub",
        "clips/tars/day2/camera": "tars/day2",
        "clips/tars/day2/x": "bob",
        "clips/tars/day2/sub/y": "tars/day2/sub",
    }
    x = next(clip for clip in found.clips if clip.speaker == "bob")
    assert x.audio and str(x.audio).endswith("day2.tar!./x.wav")


def test_every_container_is_read_and_every_defect_has_a_reason(tmp_path: Path, unaccounted: Unaccounted) -> None:
    root, out = tmp_path / "D", tmp_path / "OUT"
    plan = CorpusPlan("clips", speakers=1, seconds=0.6, size="320x240", defects=True, only=("/happy/level_1",))
    write_corpus(plan, root, workers=0, quiet=True)
    before = {path: path.stat().st_mtime_ns for path in (root / "odd").iterdir() if not path.is_symlink()}
    write_corpus(plan, root, workers=0, quiet=True)
    assert before == {path: path.stat().st_mtime_ns for path in (root / "odd").iterdir() if not path.is_symlink()}
    found = discover("clips", root)
    assert not unaccounted(root, found)
    skipped = Counter(skip.reason for skip in found.skipped if not skip.path.startswith("_truth"))
    assert skipped == {
        Reason.NOT_A_CLIP: 10, Reason.COMPRESSED: 1, Reason.BAD_LABEL: 3, Reason.TRUNCATED: 2,
        Reason.DUPLICATE_ID: 1, Reason.MISSING_FILE: 1, Reason.NO_VIDEO: 1,
    }  # fmt: skip

    first = preprocess("clips", root, out, run=QUIET)
    shards = ShardSet(out)
    names = [clip_id.removeprefix("clips/odd/") for clip_id in shards.clips["clip_id"]]
    assert names == [
        "clips/M901_happy_1_002", "a", "b", "c", "camera_file", "d", "day1/deep/two", "day1/one", "day2/one", "e",
        "really_mkv", "silent",
    ]  # fmt: skip
    assert set(shards.clips["source_codec"]) == {"h264", "mpeg4", "vp8", "mpeg1video"}
    assert (shards.clips["valid_fraction"] == 1).all() and (shards.clips["n_frames"] == 15).all()
    assert shards.clips["audio_surplus"].abs().max() < 0.1 * 16000
    assert first.reasons == {
        "empty-file": 1, "lfs-pointer": 1, "no-audio": 1, "no-face": 1, "no-video": 1, "not-media": 1, "too-short": 1,
        "truncated": 2,
    }  # fmt: skip
    again = preprocess("clips", root, out, run=QUIET)
    assert again.computed == 0 and again.digest == first.digest
