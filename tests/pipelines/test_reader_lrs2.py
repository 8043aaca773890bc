"""LRS2: folders and tar parts, the lists in any folder, both forms of transcript, and the embedded corpus in its
form with its defects."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cmet_pipelines import contents
from cmet_pipelines.preprocess import preprocess
from cmet_pipelines.processing import ProcessingSettings
from cmet_pipelines.readers import Discovery, discover
from cmet_pipelines.readers.lrs2 import Lrs2Options
from cmet_pipelines.splits import assign, resolve
from embedded_corpus.layouts import lrs2 as layout
from embedded_corpus.plan import CorpusPlan, clip_specs
from embedded_corpus.writing import write_corpus
from talking_face.media import probe
from talking_face.media.source import open_source
from talking_face.reasons import Reason, UserError
from tests.pipelines.run_options import QUIET

A, B, C = "5535415699068794046", "5536038039829982468", "6330311066473698535"
MAIN = b"Text:  IT'S {NS} THAT SIMPLE {LG}\nConf:  4\n"
PRETRAIN = (
    b"Text:  AND {NS} SO ON\nConf:  2\n\nWORD START END ASDSCORE\nAND 0.03 0.26 9.6\n{NS} 0.26 0.30 1\nSO 0.3 0.4 8.0\n"
)


def put(root: Path, **files: bytes) -> None:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def tree(root: Path, home: str = "mvlrs_v1/") -> None:
    """Four clips of main and two of pretrain, one of them with a main clip's programme and number."""
    for name in (f"main/{A}/00001", f"main/{A}/00002", f"main/{B}/00001", f"main/{C}/00007"):
        put(root, **{f"{home}{name}.mp4": b"video of " + name.encode(), f"{home}{name}.txt": MAIN})
    for name in (f"pretrain/{A}/00001", f"pretrain/{C}/00003"):
        put(root, **{f"{home}{name}.mp4": b"video of " + name.encode(), f"{home}{name}.txt": PRETRAIN})


def lists(root: Path) -> None:
    put(
        root,
        **{
            "train.txt": f"{A}/00001\r\n{A}/00002.mp4\r\n".encode(),
            "val.txt": f"main/{B}/00001\n".encode(),
            "test.txt": f"{C}/00007 NF\n{C}/00007 MV\n\n".encode(),
            "pretrain.txt": f"{A}/00001\n{C}/00003\n".encode(),
        },
    )


@pytest.mark.parametrize(
    ("home", "lists_folder"), [("mvlrs_v1/", "."), ("mvlrs_v1/", "mvlrs_v1"), ("LRS2/x/mvlrs_v1/", "LRS2/x"), ("", ".")]
)
def test_folders_and_lists(
    tmp_path: Path, home: str, lists_folder: str, unaccounted: Callable[[Path, Discovery], list[str]]
) -> None:
    tree(tmp_path, home)
    lists(tmp_path / lists_folder)
    found = discover("lrs2", tmp_path)
    splits = {clip.clip_id: clip.split for clip in found.clips}
    assert splits == {
        f"lrs2/main/{A}/00001": "train", f"lrs2/main/{A}/00002": "train", f"lrs2/main/{B}/00001": "val",
        f"lrs2/main/{C}/00007": "test", f"lrs2/pretrain/{A}/00001": "train", f"lrs2/pretrain/{C}/00003": "train",
    }  # fmt: skip
    transcripts = {clip.clip_id.split("/")[1]: clip.transcript for clip in found.clips}
    assert transcripts == {"main": "IT'S THAT SIMPLE", "pretrain": "AND SO ON"}
    assert {clip.speaker for clip in found.clips} == {A, B, C}
    assert all(clip.emotion is None and clip.sentence_id is None and clip.audio is None for clip in found.clips)
    notes = "\n".join(found.notes)
    assert "no speaker ids" in notes and "1 of 3 programmes have clips in more than one split" in notes
    assert "no list" not in notes and "transcript" not in notes
    assert unaccounted(tmp_path, found) == []
    assert resolve("auto", "lrs2", found.clips) == "lrs2-official"
    assert {clip.clip_id: clip.split for clip in assign("lrs2-official", found.clips)} == splits

    main = discover("lrs2", tmp_path, Lrs2Options(subset="main"))
    assert len(main.clips) == 4 and unaccounted(tmp_path, main) == []
    left = [skip for skip in main.skipped if skip.reason is Reason.NOT_ASKED]
    assert len(left) == 4 and sum(skip.clip is not None for skip in left) == 2  # videos and transcripts
    assert len(discover("lrs2", tmp_path, Lrs2Options(subset="pretrain")).clips) == 2


def test_one_subset_as_the_root_and_no_lists(tmp_path: Path) -> None:
    tree(tmp_path)
    found = discover("lrs2", tmp_path / "mvlrs_v1" / "main")
    assert len(found.clips) == 4 and {clip.split for clip in found.clips} == {None}
    assert any("no test.txt, val.txt, train.txt below the folder" in note for note in found.notes)
    with pytest.raises(UserError, match="no lrs2 clip"):
        discover("lrs2", tmp_path / "mvlrs_v1" / "main" / A)


def test_what_is_listed_and_what_is_there_may_differ(
    tmp_path: Path, unaccounted: Callable[[Path, Discovery], list[str]]
) -> None:
    tree(tmp_path)
    lists(tmp_path)
    put(
        tmp_path,
        **{
            "train.txt": f"{A}/00001\n{A}/00009\n{C}/00007\nnonsense\n".encode(),
            "mvlrs_v1/train.txt": b"again",
            "pretrain.txt": f"{B}/00001\n{B}/00002\n".encode(),
            f"mvlrs_v1/main/{A}/00002.txt": b"no text here",
            f"mvlrs_v1/main/{A}/00002.wav": b"RIFF",
            f"mvlrs_v1/main/{A}/00001/0.jpg": b"\xff\xd8",
            f"mvlrs_v1/main/{B}/00002.txt": MAIN,
            "mvlrs_v1/main/123/00001.mp4": b"video",
            "mvlrs_v1/README": b"x",
        },
    )
    (tmp_path / f"mvlrs_v1/main/{B}/00001.txt").unlink()
    found = discover("lrs2", tmp_path)
    clips = {clip.clip_id.removeprefix("lrs2/main/"): clip for clip in found.clips}
    # Named for training and for the test: it is held out. In no list: no split.
    assert clips[f"{C}/00007"].split == "test" and clips[f"{A}/00002"].split is None
    assert clips[f"{A}/00002"].transcript is None and clips[f"{B}/00001"].transcript is None
    reasons = {skip.path: skip.reason for skip in found.skipped}
    assert reasons[f"mvlrs_v1/main/{A}/00009.mp4"] is Reason.MISSING_FILE
    assert reasons[f"mvlrs_v1/main/{A}/00002.txt"] is Reason.BAD_LABEL
    assert Counter(reasons.values()) == {Reason.NOT_A_CLIP: 14, Reason.MISSING_FILE: 1, Reason.BAD_LABEL: 1}
    notes = "\n".join(found.notes)
    assert "none of the 2 clips of pretrain.txt is here" in notes
    assert "1 clips of main stand in no list" in notes and "2 clips have no transcript" in notes
    (detail,) = [skip.detail for skip in found.skipped if skip.path == "train.txt"]
    assert detail == "the list of 3 clips, read, and 1 line naming none"
    assert unaccounted(tmp_path, found) == []


def _tar(source: Path, names: list[str]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name in names:
            archive.add(source / name, arcname=name)
    return file.getvalue()


def test_tar_parts_as_downloaded(tmp_path: Path) -> None:
    loose, root = tmp_path / "loose", tmp_path / "root"
    tree(loose)
    names = sorted(path.relative_to(loose).as_posix() for path in loose.rglob("*.*"))
    data = _tar(loose, names)
    cuts = [0, 700, 1300, 5000, len(data)]  # within a member, within a header
    for letter, start, end in zip("abcd", cuts, cuts[1:], strict=False):
        put(root, **{f"lrs2_v1_parta{letter}": data[start:end]})
    lists(root)
    found = discover("lrs2", root)
    lists(loose)
    expected = {clip.clip_id: (clip.split, clip.transcript) for clip in discover("lrs2", loose).clips}
    assert {clip.clip_id: (clip.split, clip.transcript) for clip in found.clips} == expected and len(expected) == 6
    for clip in found.clips:
        with open_source(clip.video) as file:
            assert file.read() == b"video of " + clip.clip_id.removeprefix("lrs2/").encode()
    mentioned = {str(clip.video) for clip in found.clips} | {f"{root}/{skip.path}" for skip in found.skipped}
    assert {f"{root}/lrs2_v1_partaa!{name}" for name in names} <= mentioned
    assert {f"{root}/lrs2_v1_parta{letter}" for letter in "bcd"} <= mentioned

    (root / "lrs2_v1_partac").unlink()
    assert 0 < len(discover("lrs2", root).clips) < 6


def test_contents_are_the_releases_counts() -> None:
    table = contents.expected("lrs2")
    assert table is not None and dict(zip(table["split"], table["clips"], strict=True)) == {
        "train": 45839 + 96318, "val": 1082, "test": 1243,
    }  # fmt: skip


def test_the_embedded_corpus_holds_out_half_of_its_speakers() -> None:
    specs = layout.select(clip_specs(8))
    homes = {layout.paths(Path(), spec)[0] for spec in specs}
    assert len(homes) == len(specs) == 8 * 25
    where = {name: set(layout.list_lines(specs, name)) for name in ("pretrain", "train", "val", "test")}
    assert sum(map(len, where.values())) == len(specs)
    assert all(line.endswith((" NF\n", " MV\n")) for line in where["test"])
    programmes = {name: {line.partition("/")[0] for line in lines} for name, lines in where.items()}
    assert len(programmes["test"]) == len(programmes["train"]) == 4
    assert not programmes["test"] & (programmes["train"] | programmes["val"] | programmes["pretrain"])


def test_the_defects_on_real_bytes(tmp_path: Path, unaccounted: Callable[[Path, Discovery], list[str]]) -> None:
    root, out = tmp_path / "D", tmp_path / "out"
    plan = CorpusPlan("lrs2", speakers=1, seconds=0.6, defects=True, only=("/happy/level_2", "/neutral/"))
    write_corpus(plan, root, workers=0, quiet=True)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert write_corpus(plan, root, workers=0, quiet=True).written == 0
    assert before == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}

    info = probe(next((root / "mvlrs_v1/main").rglob("00001.mp4")))
    assert info.video and info.audio
    assert (info.video.codec, info.video.fps, info.video.width, info.video.height) == ("mpeg4", 25, 160, 160)
    assert (info.audio.codec, info.audio.rate, info.audio.channels) == ("aac", 16000, 1)

    found = discover("lrs2", root)
    assert unaccounted(root, found) == []
    chosen = tmp_path / "list.csv"  # one good clip, and all that are not
    spoilt = [clip.clip_id for clip in found.clips if clip.speaker[-4:] in ("9990", "9991")]
    good = next(clip.clip_id for clip in found.clips if clip.clip_id not in spoilt)
    chosen.write_text("\n".join(["clip_id", good, *spoilt]))
    preprocess("lrs2", root, out, ProcessingSettings(clips=str(chosen)), run=QUIET)
    ledger = pq.read_table(out / "ledger.parquet").to_pylist()
    outcome = Counter(row["reason"] for row in ledger if row["status"] in ("kept", "dropped"))
    assert outcome == {"": 7, "truncated": 1, "empty-file": 1, "no-audio": 1, "too-short": 1}
    kept = {row["clip_id"]: row for row in pq.read_table(out / "clips.parquet").to_pylist()}
    packed = [row for row in kept.values() if row["source"].startswith("lrs2_v1_partaa!")]
    assert sorted(row["clip_id"].split("/")[1] for row in packed) == ["main", "pretrain"]
    assert all(row["transcript"] and row["n_frames"] == 15 for row in packed)
    broken = {row["take"]: row for row in kept.values() if row["speaker"].endswith("9990")}
    assert (broken["00002"]["transcript"], broken["00001"]["transcript"]) == ("GOOD EVENING AND WELCOME", None)
    assert broken["00009"]["split"] is None and broken["00001"]["split"] == "train"
    skipped = Counter(row["reason"] for row in ledger if row["status"] == "skipped")
    assert skipped["missing-file"] == 2 and skipped["duplicate-id"] == 1 and skipped["bad-label"] == 1
    assert any(row["detail"] == "a name that leaves the archive" for row in ledger)
