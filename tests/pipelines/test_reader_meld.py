"""MELD's reader: every tree and encoding in use gives the same clips, and every file ends as a clip or a reason."""

from __future__ import annotations

import csv
import io
import tarfile
from pathlib import Path

import pytest

from pipelines import lists
from pipelines.readers import Discovery, ReaderOptions, discover
from pipelines.splits import assign, resolve
from talking_face.reasons import Reason, UserError
from tests.conftest import SHARED

HEAD = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
ROWS = {
    "train": ['1,"Oh my God, he’s… lost\x20\x20it.",Joey,joy,positive,0,0,4,7,"00:20:57,256","00:21:00,049"'],
    "dev": ['1,“What?”,Monica,surprise,negative,0,0,4,7,"0:21:01,927","00:21:03,26"'],
    "test": [
        '1,Café!,Joey,neutral,neutral,0,0,1,23,"0:10:44,769","0:10:44,769"',
        "2,No.,Richard’s Date,anger,negative,0,1,1,23,,",
    ],
}
TREES = {
    "flat": ("train_splits", "dev_splits_complete", "output_repeated_splits_test", ""),
    "nested": ("train/train_splits", "dev/dev_splits_complete", "test/output_repeated_splits_test", ""),
    "mirror": ("MELD-RAW/MELD.Raw/train/train_splits", "MELD-RAW/MELD.Raw/dev/dev_splits_complete",
               "MELD-RAW/MELD.Raw/test/output_repeated_splits_test", "MELD-RAW/MELD.Raw/"),
    "renamed": ("train_splits", "dev_splits", "test_splits", "labels/"),
    "bare": ("train", "dev", "test", "deep/er/"),
}  # fmt: skip
ENCODINGS = {
    "utf-8": lambda text: text.encode(),
    "bom": lambda text: text.encode("utf-8-sig"),
    "c1": lambda text: text.encode("cp1252").decode("latin-1").encode(),  # as in the raw archives
    "cp1252": lambda text: text.encode("cp1252"),
}


def _write(root: Path, name: str, data: bytes = b"") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data or b"bytes of " + name.encode())


def _labels(split: str, encoding: str = "utf-8", rows: list[str] | None = None) -> bytes:
    return ENCODINGS[encoding]("\r\n".join([HEAD, *(ROWS[split] if rows is None else rows), ""]))


def _tree(root: Path, tree: str = "nested", encoding: str = "utf-8") -> None:
    """All clips and labels of ROWS; the training labels in the training folder's parent."""
    *folders, csvs = TREES[tree]
    for split, folder in zip(ROWS, folders, strict=True):
        home = f"{Path(folder).parent}/" if split == "train" else csvs
        _write(root, f"{home}{split}_sent_emo.csv", _labels(split, encoding))
        for utterance in range(len(ROWS[split])):
            _write(root, f"{folder}/dia0_utt{utterance}.mp4")


def _reasons(found: Discovery) -> dict[str, tuple[Reason, str]]:
    return {skip.path: (skip.reason, skip.detail) for skip in found.skipped}


def _account(root: Path, found: Discovery) -> None:
    """Every file is one clip's video or one skipped row; nothing else but rows of missing files."""
    shown = [str(clip.video).removeprefix(f"{root}/") for clip in found.clips]
    shown += [skip.path for skip in found.skipped if skip.reason is not Reason.MISSING_FILE]
    assert sorted(shown) == sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if not p.is_dir())


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_tree_and_encoding_gives_the_same_clips(tree: str, encoding: str, tmp_path: Path) -> None:
    _tree(tmp_path, tree, encoding)
    found = discover("meld", tmp_path)
    _account(tmp_path, found)
    assert [(c.clip_id, c.speaker, c.emotion, c.split, c.take, c.transcript) for c in found.clips] == [
        ("meld/dev/dia0_utt0", "Monica", "surprised", "val", "dia0_utt0", '"What?"'),
        ("meld/test/dia0_utt0", "Joey", "neutral", "test", "dia0_utt0", "Café!"),
        ("meld/test/dia0_utt1", "Richard's Date", "angry", "test", "dia0_utt1", "No."),
        ("meld/train/dia0_utt0", "Joey", "happy", "train", "dia0_utt0", "Oh my God, he's… lost it."),
    ]
    assert all(reason is Reason.NOT_A_CLIP and "read" in detail for reason, detail in _reasons(found).values())
    assert any("1 of 3 speakers are in more than one split" in note for note in found.notes)
    assert any(f"{TREES[tree][0]} (1 files)" in note for note in found.notes)
    preset = resolve("auto", "meld", found.clips)
    assert preset == "meld-official" and [c.split for c in assign(preset, found.clips)] == [
        "val",
        *["test"] * 2,
        "train",
    ]


def test_one_split_folder_as_root_with_labels_elsewhere(tmp_path: Path) -> None:
    _tree(tmp_path, "flat")
    root = tmp_path / "dev_splits_complete"
    with pytest.raises(UserError, match=r"no dev_sent_emo.csv is below the folder; .* --labels"):
        discover("meld", root)
    for labels in (tmp_path, tmp_path / "dev_sent_emo.csv"):
        found = discover("meld", root, ReaderOptions(labels=labels))
        assert [clip.clip_id for clip in found.clips] == ["meld/dev/dia0_utt0"]
    with pytest.raises(UserError, match=r"no folder that holds train_sent_emo\.csv"):
        discover("meld", root, ReaderOptions(labels=root))


def test_final_cuts_win_and_every_odd_file_has_a_reason(tmp_path: Path) -> None:
    _tree(tmp_path)
    test = "test/output_repeated_splits_test"
    odd = {
        f"{test}/final_videos_testdia0_utt1.mp4": None,
        f"{test}/dia0_utt1.mp4": (Reason.DUPLICATE_ID, "superseded by"),
        "z/test_splits/dia0_utt0.mp4": (Reason.DUPLICATE_ID, "the same clip as test/output"),
        f"{test}/dia0_utt2.mp4": (Reason.UNLABELLED, "no row for dialogue 0, utterance 2"),
        f"{test}/._dia0_utt0.mp4": (Reason.NOT_A_CLIP, "AppleDouble"),
        f"{test}/dia0_utt0.wav": (Reason.NOT_A_CLIP, "own track"),
        f"{test}/intro.mp4": (Reason.NOT_A_CLIP, "is not dia<number>"),
        "loose/dia0_utt0.mp4": (Reason.BAD_LABEL, "split unknown"),
        "README.txt": (Reason.NOT_A_CLIP, "a .txt file"),
        "copy/dev_sent_emo.csv": (Reason.NOT_A_CLIP, "once more"),
        "MELD_Dyadic/train_sent_emo_dya.csv": (Reason.NOT_A_CLIP, "a .csv file"),
    }
    for name in odd:
        _write(tmp_path, name, _labels("dev") if name.endswith("dev_sent_emo.csv") else b"")
    rows = [*ROWS["train"], "x,Bad number,Joey,joy,positive,zero,1,,,,", "9,Gone.,Joey,joy,positive,0,5,,,,",
            "9,Odd.,Joey,bliss,positive,0,6,,,,"]  # fmt: skip
    _write(tmp_path, "train/train_sent_emo.csv", _labels("train", rows=rows))
    _write(tmp_path, "train/train_splits/dia0_utt6.mp4")
    found = discover("meld", tmp_path)
    _account(tmp_path, found)
    reasons = _reasons(found)
    for name, expected in odd.items():
        if expected is not None:
            assert reasons[name][0] is expected[0] and expected[1] in reasons[name][1], name
    assert reasons["train/train_splits/dia0_utt5.mp4"][0] is Reason.MISSING_FILE
    assert reasons["train/train_splits/dia0_utt6.mp4"][0] is Reason.BAD_LABEL
    assert reasons["train/train_sent_emo.csv"][1].endswith("3 rows, UTF-8, and not line 3")
    (cut,) = [clip for clip in found.clips if clip.clip_id == "meld/test/dia0_utt1"]
    assert cut.video.path.endswith("final_videos_testdia0_utt1.mp4") and len(found.clips) == 4


def test_archives_are_read_or_told_how_to_unpack(tmp_path: Path) -> None:
    loose, root = tmp_path / "loose", tmp_path / "root"
    _tree(loose, "flat")
    root.mkdir()
    with tarfile.open(root / "test.tar.gz", "w:gz") as archive:
        archive.add(loose / "output_repeated_splits_test", "output_repeated_splits_test")
    with pytest.raises(UserError, match=r"tar -xzf test.tar.gz"):
        discover("meld", root)
    with tarfile.open(root / "test.tar", "w") as archive:
        for name in ("output_repeated_splits_test", "test_sent_emo.csv"):
            archive.add(loose / name, name)
    found = discover("meld", root)
    assert [str(clip.video).removeprefix(f"{root}/") for clip in found.clips] == [
        f"test.tar!output_repeated_splits_test/dia0_utt{n}.mp4" for n in (0, 1)
    ]
    assert found.clips[0].transcript == "Café!"


def test_damaged_labels_are_told(tmp_path: Path) -> None:
    _tree(tmp_path)
    for data, words in ((b"a;b\r\n1;2\r\n", "has no column Utterance"), (b"version https://git-lfs\n", "git lfs pull")):
        _write(tmp_path, "dev_sent_emo.csv", data)
        with pytest.raises(UserError, match=words):
            discover("meld", tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "c1"])
def test_real_labels(encoding: str, tmp_path: Path) -> None:
    """The whole release as empty files beside its real labels, in today's encoding and in the older one."""
    folder = SHARED / "data" / "labels"
    if not (folder / "meld_train_sent_emo.csv").is_file():
        pytest.skip("../shared/data/labels is absent: MELD's real labels are not read")
    *folders, _ = TREES["flat"]
    for split, home in zip(ROWS, folders, strict=True):
        text = (folder / f"meld_{split}_sent_emo.csv").read_bytes().decode()
        _write(tmp_path, f"{split}_sent_emo.csv", ENCODINGS[encoding](text))
        (tmp_path / home).mkdir()
        for row in csv.DictReader(io.StringIO(text, newline="")):
            (tmp_path / home / f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}.mp4").touch()
    (tmp_path / folders[1] / "dia110_utt7.mp4").unlink()  # as in the release
    (tmp_path / folders[2] / "dia108_utt1.mp4").touch()
    found = discover("meld", tmp_path, ReaderOptions(defects=False))
    assert len(found.clips) == 9989 + 1108 + 2610
    reasons = {name: reason for name, (reason, _) in _reasons(found).items() if not name.endswith(".csv")}
    assert reasons == {
        "dev_splits_complete/dia110_utt7.mp4": Reason.MISSING_FILE,
        "output_repeated_splits_test/dia108_utt1.mp4": Reason.UNLABELLED,
    }
    text = "".join(clip.transcript or "" for clip in found.clips)
    assert not any("\x80" <= letter < "\xa0" or letter in "‘’“”\n" for letter in text)
    assert text.count("…") == 198 and text.count("é") == 6  # counted in today's files
    chosen, absent = lists.select("cmet-sarcastic", found.clips)
    assert len(chosen) == 12 and not absent and {clip.emotion for clip in chosen} == {"sarcastic"}
    neutral = {clip.clip_id for clip in found.clips if clip.emotion == "neutral" and clip.split == "test"}
    assert {clip.clip_id for clip in chosen} <= neutral
    assert {clip.clip_id for clip in chosen} <= {clip.clip_id for clip in discover("meld", tmp_path).clips}
