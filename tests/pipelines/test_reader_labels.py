"""Labels of every reader: rows in other forms are matched, other rows are named and counted, and damage is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmet_pipelines import lists
from cmet_pipelines.numbering import name_sentences
from cmet_pipelines.preprocess import preprocess
from cmet_pipelines.readers import discover
from cmet_pipelines.readers.clips import ClipsOptions
from cmet_pipelines.readers.label_paths import match
from cmet_pipelines.readers.meld import MeldOptions
from talking_face.clip import Clip, MediaSource
from talking_face.emotions import canonical
from talking_face.reasons import Reason, UserError
from tests.pipelines.run_options import QUIET


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


@pytest.mark.parametrize(
    ("row", "file"),
    [
        ("a/one.mp4", "a/one.mp4"),
        ("A/One.MP4", "a/one.mp4"),
        ("a/one", "a/one.mp4"),
        (r"a\one.mp4", "a/one.mp4"),
        (r"D:\data\a\one.mp4", "a/one.mp4"),
        ("root/a/one.mp4", "a/one.mp4"),
        ("/old/place/root/a/one.mp4", "a/one.mp4"),
        ("one.mp4", "a/one.mp4"),
        (" one ", "a/one.mp4"),
        ("Zoe\u0301", "b/Zoé.mp4"),
        ("two.mp4", None),  # two files
        ("a/two.mp4", "a/two.mp4"),
        ("one.avi", None),
        ("c/one.mp4", None),
        ("ne.mp4", None),
    ],
)
def test_a_path_in_another_form_is_matched_if_only_one_file_fits(row: str, file: str | None) -> None:
    files = ["a/one.mp4", "a/two.mp4", "b/two.mp4", "b/Zoé.mp4"]
    assert match([row], files).file.get(row) == file


def test_two_rows_for_one_file_are_not_guessed() -> None:
    found = match(["x/one.mp4", "y/one.mp4", "A/TWO"], ["one.mp4", "a/two.mp4"])
    assert found.file == {"A/TWO": "a/two.mp4"} and found.ambiguous.keys() == {"x/one.mp4", "y/one.mp4"}
    assert match(["one.mp4", "ONE.mp4"], ["one.mp4"]).file == {"one.mp4": "one.mp4"}


@pytest.mark.parametrize(
    ("text", "emotion"),
    [
        *(
            ("ANG", "angry"),
            ("anger", "angry"),
            ("Angry", "angry"),
            ("HAPPY", "happy"),
            ("sad.", "sad"),
            ("Fea", "fear"),
        ),
        *(("surprise", "surprised"), ("DIS", "disgusted"), ("Neu", "neutral"), ("smug face", "smug-face")),
    ],
)
def test_spellings_of_emotions(text: str, emotion: str) -> None:
    assert canonical(text) == emotion


def test_cells_without_a_value_and_cells_that_cannot_be_read(tmp_path: Path) -> None:
    none = ["nan", "NaN", "none", "n/a", "NA", "null", "", " - "]
    bad = {"i1": (",high", "intensity 'high'"), "i2": (",3.5", "'3.5'"), "i3": (",1e9", "1e9"), "i4": (",300", "300"),
           "e1": ("=cmd(),1", "formula"), "s1": ("sad,1,exam", "split 'exam'")}  # fmt: skip
    rows = [f"n{index}.mp4,{text},{text}" for index, text in enumerate(none)]
    rows += ["x.mp4,sad.,3.0", "y.mp4,Anger, 3", "z.mp4,HAP,2."] + [
        f"{name}.mp4,{row}" for name, (row, _) in bad.items()
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["file,emotion,intensity,split", *rows, "gone.mp4,sad,1"]))
    _touch(tmp_path, *(row.partition(",")[0] for row in rows))
    found = discover("clips", tmp_path)
    labels = {clip.take: (clip.emotion, clip.intensity) for clip in found.clips}
    assert {labels.pop(f"n{index}") for index in range(len(none))} == {(None, None)}
    assert labels == {"x": ("sad", 3), "y": ("angry", 3), "z": ("happy", 2)}
    skipped = {skip.path: skip for skip in found.skipped}
    for name, (_, words) in bad.items():
        assert skipped[f"{name}.mp4"].reason is Reason.BAD_LABEL and words in skipped[f"{name}.mp4"].detail, name
    notes = "\n".join(found.notes)
    assert "6 left out for a label or a name that cannot be read (bad-label): e1.mp4" in notes
    assert "(missing-file): gone.mp4" in notes and str(tmp_path) not in notes
    summary_rows = f"{len(rows)} of {len(rows) + 1} rows name a video"
    assert summary_rows in notes


def test_clips_without_a_usable_label_count_as_dropped(small_mead: Path, tmp_path: Path) -> None:
    video = next((small_mead / "M901").rglob("front/*/*/*.mp4"))
    for name in "ab":
        (tmp_path / "root").mkdir(exist_ok=True)
        (tmp_path / "root" / f"{name}.mp4").write_bytes(video.read_bytes())
    (tmp_path / "root" / "labels.csv").write_text("file,intensity\na.mp4,high\nb.mp4,1\n")
    from cmet_pipelines.processing import ProcessingSettings

    settings = ProcessingSettings(require_audio=False)
    summary = preprocess("clips", tmp_path / "root", tmp_path / "out", settings, run=QUIET)
    assert summary.kept == 1 and summary.dropped == 0 and summary.failed_share == 0.5


TABLES = [  # content of a table, words of the message
    (b"file,a\nother/9.mp4,x\n", "no row of .* names a file .*'other/9.mp4', and the folder has 'a.mp4'"),
    (b"file,emotion\n", "has no row"),
    (b"file,file\na.mp4,b\n", "two columns `file`"),
    (b"file,speaker\na.mp4,x\0y\n", "NUL bytes"),
    (b"file,speaker\na.mp4," + b"x" * 200_000, "not a CSV after line"),
    (b'file,speaker\na.mp4,"open\n', "not a CSV after line"),
    (b"file\tspeaker\na.mp4\tx\n", "separate columns by commas"),
    (b"PK\x03\x04" + bytes(50), "Excel workbook"),
    (b"\xd0\xcf\x11\xe0" + bytes(50), "Excel workbook"),
    (b"PAR1" + bytes(50), "Parquet"),
    (b"\xff\xfe\x00", "UTF-16"),
    (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ("file,speaker\na.mp4,José\n".encode("latin-1"), "line 2 is not UTF-8"),
]


@pytest.mark.parametrize(("data", "words"), TABLES)
def test_a_damaged_table_is_one_line(data: bytes, words: str, tmp_path: Path) -> None:
    _touch(tmp_path, "a.mp4")
    (tmp_path / "labels.csv").write_bytes(data)
    with pytest.raises(UserError, match=words) as caught:
        discover("clips", tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_tables_in_utf_16_and_tables_that_are_not_files(tmp_path: Path) -> None:
    _touch(tmp_path, "é.mp4")
    (tmp_path / "labels.csv").write_text("file,speaker\né.mp4,José\n", encoding="utf-16")
    assert discover("clips", tmp_path).clips[0].speaker == "José"
    for path in (Path("/dev/zero"), tmp_path, tmp_path / "gone.csv", tmp_path / ("x" * 300)):
        with pytest.raises(UserError):
            discover("clips", tmp_path, ClipsOptions(labels=path))
        with pytest.raises(UserError):
            lists.select(str(path), discover("clips", tmp_path).clips)
        with pytest.raises(UserError):
            discover("meld", tmp_path, MeldOptions(labels=path))


def _clips(*ids: str) -> list[Clip]:
    return [
        Clip(
            clip_id=name,
            dataset="mead",
            speaker="M003",
            video=MediaSource("x.mp4"),
            emotion="sad",
            intensity=1,
            take="1",
        )
        for name in ids
    ]


def test_sentences_and_lists_match_ids_in_other_forms(tmp_path: Path) -> None:
    table = tmp_path / "own.csv"
    table.write_text(
        "clip_id,sentence_id,emotion\nMEAD/m003/front/sad/1/001,s1,ANG\nM003\\front\\sad\\1\\002,s2,nan\n"
        "mead/M003/front/sad/1/009,s9,\n"
    )
    clips = _clips("mead/M003/front/sad/1/001", "mead/M003/front/sad/1/002", "mead/M003/front/sad/1/003")
    named, notes = name_sentences(str(table), clips, {})
    assert [clip.sentence_id for clip in named] == ["s1", "s2", None]
    assert any("1 row without a clip here: mead/M003/front/sad/1/009" in note for note in notes)
    assert str(tmp_path) not in "".join(notes)
    chosen, absent = lists.select(str(table), clips)
    assert [clip.emotion for clip in chosen] == ["angry", "sad"] and absent == ["mead/M003/front/sad/1/009"]
    table.write_text("clip_id,sentence_id\nother/1,s1\n")
    for use in (lambda: name_sentences(str(table), clips, {}), lambda: lists.select(str(table), clips)):
        with pytest.raises(UserError, match="clip_id has other/1, and the folder has mead/M003/front/sad/1/001"):
            use()
    for data, words in TABLES[2:7]:
        table.write_bytes(data.replace(b"file", b"clip_id"))
        with pytest.raises(UserError, match=f"{words}|has no column"):
            name_sentences(str(table), clips, {})


def test_labels_of_the_other_readers_that_match_nothing(tmp_path: Path) -> None:
    crema, lrs2, meld = (tmp_path / name for name in ("crema", "lrs2", "meld"))
    _touch(crema, "VideoFlash/1001_DFA_ANG_XX.flv")
    (crema / "summaryTable.csv").write_text("FileName,MultiModalVote\n1002_DFA_ANG_XX,A\n")
    with pytest.raises(UserError, match="the table has '1002_DFA_ANG_XX', and the folder has '1001_DFA_ANG_XX'"):
        discover("crema-d", crema)
    (crema / "summaryTable.csv").write_text("filename,multimodalvote\nC:\\x\\1001_dfa_ang_xx.flv,Sadness\nodd,A\n")
    found = discover("crema-d", crema)
    assert found.clips[0].emotion_voted == "sad" and any("cannot be read: line 3" in note for note in found.notes)

    programme = "5" * 19
    _touch(lrs2, f"main/{programme}/00001.mp4")
    (lrs2 / "test.txt").write_text(f"{'6' * 19}/00001\n")
    with pytest.raises(
        UserError, match="the lists have 6666666666666666666/00001, and the folder has 5555555555555555555"
    ):
        discover("lrs2", lrs2)
    (lrs2 / "test.txt").write_text(f"D:\\main\\{programme}\\00001.MP4 NF\nnonsense\n")
    found = discover("lrs2", lrs2)
    assert found.clips[0].split == "test" and any("such as 'nonsense'" in note for note in found.notes)

    _touch(meld, "test/dia1_utt1.mp4")
    head = "Utterance,Speaker,Emotion,Dialogue_ID,Utterance_ID\n"
    (meld / "test_sent_emo.csv").write_text(f"{head}Hi,Joey,joy,7,7\n")
    with pytest.raises(UserError, match="the rows begin with dia7_utt7, and the files of test with dia1_utt1"):
        discover("meld", meld)
    (meld / "test_sent_emo.csv").write_text(f"{head}Hi,Joey,ANGER.,1.0, 1\nHo,Joey,joy,x,2\n")
    found = discover("meld", meld)
    assert found.clips[0].emotion == "angry" and any("line 3" in note for note in found.notes)

    mead = tmp_path / "mead"
    _touch(mead, "M003/Front/Anger/Level_2/001.mp4", "M003/front/bored/level_1/001.mp4")
    found = discover("mead", mead)
    assert [clip.clip_id for clip in found.clips] == ["mead/M003/front/angry/2/001"]
    assert any("(bad-label): M003/front/bored/level_1/001.mp4" in note for note in found.notes)
