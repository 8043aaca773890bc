"""MELD's reader: every tree and encoding in use gives the same clips, and every file ends as a clip or a reason."""

from __future__ import annotations

import csv
import importlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from scipy.signal import resample_poly

from cmet_pipelines import defects, lists
from cmet_pipelines.preprocess import preprocess
from cmet_pipelines.readers import Discovery, discover
from cmet_pipelines.readers.meld import MeldOptions
from cmet_pipelines.shards import ShardSet
from cmet_pipelines.splits import assign, resolve
from embedded_corpus.clip import perform
from embedded_corpus.plan import CorpusPlan, clip_specs
from embedded_corpus.writing import write_corpus
from talking_face.media import probe, read_audio, read_frames
from talking_face.reasons import ClipError, Reason, UserError
from tests.conftest import SHARED
from tests.pipelines.run_options import QUIET

Unaccounted = Callable[[Path, Discovery], list[str]]

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


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_tree_and_encoding_gives_the_same_clips(
    tree: str, encoding: str, tmp_path: Path, unaccounted: Unaccounted
) -> None:
    _tree(tmp_path, tree, encoding)
    found = discover("meld", tmp_path)
    assert not unaccounted(tmp_path, found)
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
        found = discover("meld", root, MeldOptions(labels=labels))
        assert [clip.clip_id for clip in found.clips] == ["meld/dev/dia0_utt0"]
    with pytest.raises(UserError, match=r"is not a folder with train_sent_emo\.csv"):
        discover("meld", root, MeldOptions(labels=root))


def test_final_cuts_win_and_every_odd_file_has_a_reason(tmp_path: Path, unaccounted: Unaccounted) -> None:
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
    assert not unaccounted(tmp_path, found)
    reasons = _reasons(found)
    for name, expected in odd.items():
        if expected is not None:
            assert reasons[name][0] is expected[0] and expected[1] in reasons[name][1], name
    assert reasons["train/train_splits/dia0_utt5.mp4"][0] is Reason.MISSING_FILE
    assert reasons["train/train_splits/dia0_utt6.mp4"][0] is Reason.BAD_LABEL
    assert reasons["train/train_sent_emo.csv"][1].endswith("3 rows, UTF-8, and not line 3")
    (cut,) = [clip for clip in found.clips if clip.clip_id == "meld/test/dia0_utt1"]
    assert cut.video.path.endswith("final_videos_testdia0_utt1.mp4") and len(found.clips) == 4


def test_archives_are_read_or_told_how_to_unpack(tmp_path: Path, unaccounted: Unaccounted) -> None:
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
    assert found.clips[0].transcript == "Café!" and not unaccounted(root, found)


def test_damaged_labels_are_told(tmp_path: Path) -> None:
    _tree(tmp_path)
    for data, words in (
        (b"a;b\r\n1;2\r\n", "has no column `Utterance`"),
        (b"version https://git-lfs\n", "git lfs pull"),
    ):
        _write(tmp_path, "dev_sent_emo.csv", data)
        with pytest.raises(UserError, match=words):
            discover("meld", tmp_path)


def test_real_labels(tmp_path: Path) -> None:
    """The whole release as empty files with its real labels, in today's encoding and in the older one."""
    labels = {split: SHARED / "data" / "labels" / f"meld_{split}_sent_emo.csv" for split in ROWS}
    if not all(path.is_file() for path in labels.values()):
        pytest.skip("../shared/data/labels is absent: MELD's real labels are not read")
    *folders, _ = TREES["flat"]
    for (split, path), home in zip(labels.items(), folders, strict=True):
        text = path.read_bytes().decode()
        _write(tmp_path, f"{split}_sent_emo.csv", text.encode())
        (tmp_path / home).mkdir()
        for row in csv.DictReader(io.StringIO(text, newline="")):
            (tmp_path / home / f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}.mp4").touch()
    (tmp_path / folders[1] / "dia110_utt7.mp4").unlink()  # as in the release
    (tmp_path / folders[2] / "dia108_utt1.mp4").touch()
    found = discover("meld", tmp_path, defects=False)
    assert len(found.clips) == 9989 + 1108 + 2610
    reasons = {name: reason for name, (reason, _) in _reasons(found).items() if not name.endswith(".csv")}
    assert reasons == {
        "dev_splits_complete/dia110_utt7.mp4": Reason.MISSING_FILE,
        "output_repeated_splits_test/dia108_utt1.mp4": Reason.UNLABELLED,
    }
    text = "".join(clip.transcript or "" for clip in found.clips)
    assert not any("\x80" <= letter < "\xa0" or letter in "‘’“”\n" for letter in text)
    assert text.count("…") == 198 and text.count("é") == 6  # counted in today's files
    for split, path in labels.items():
        _write(tmp_path, f"{split}_sent_emo.csv", ENCODINGS["c1"](path.read_bytes().decode()))
    older = discover("meld", tmp_path)
    chosen, absent = lists.select("cmet-sarcastic", older.clips)
    assert len(chosen) == 12 and not absent and {clip.emotion for clip in chosen} == {"sarcastic"}
    by_id = {clip.clip_id: clip for clip in found.clips}
    assert all(by_id[clip.clip_id] == clip for clip in older.clips) and len(older.clips) == len(found.clips) - 25
    assert {(by_id[clip.clip_id].emotion, clip.split) for clip in chosen} == {("neutral", "test")}


# The embedded corpus as MELD: real bytes ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of two people each, and the defects."""
    root = tmp_path_factory.mktemp("meld") / "D"
    write_corpus(CORPUS, root, workers=0, quiet=True)
    return root


CORPUS = CorpusPlan("meld", speakers=1, seconds=1.2, size="640x360", defects=True, only=("/angry/", "/happy/"))


def test_sound_and_rate_are_melds(corpus: Path) -> None:
    layout = importlib.import_module("embedded_corpus.layouts.meld")
    specs = [s for s in layout.select(clip_specs(1, 1, "640x360", 1.2)) if s.emotion in ("angry", "happy")]
    for spec, channels in zip(specs, (6, 2), strict=True):
        video, _ = layout.paths(corpus, spec)
        info = probe(video)
        assert info.video and info.audio and info.video.fps == pytest.approx(24000 / 1001)
        assert (info.video.codec, info.video.pix_fmt, info.video.n_frames) == ("h264", "yuv420p", 29)
        assert (info.audio.codec, info.audio.rate, info.audio.channels) == ("aac", 48000, channels)
        spoken = resample_poly(perform(spec, 24000 / 1001).sound.astype(float), 1, 3)
        heard = read_audio(video).astype(float)[: len(spoken)]
        assert np.corrcoef(spoken, heard)[0, 1] > 0.99
        # On the grid of 25 frames/s each picture is the one nearest in time.
        own, grid = read_frames(video, None), read_frames(video, 25.0)
        assert len(grid) == round(29 * 1001 / 24000 * 25)
        nearest = [min(range(29), key=lambda n: (abs(n * 1001 / 24000 - k / 25), n)) for k in range(len(grid))]
        assert np.array_equal(grid, own[nearest])
    # What the centre alone spares us: the mean of the six channels is mostly noise.
    with av.open(str(layout.paths(corpus, specs[0])[0])) as container:
        planes = np.hstack([frame.to_ndarray() for frame in container.decode(audio=0)])
    mean = resample_poly(planes.mean(axis=0), 1, 3)
    spoken = resample_poly(perform(specs[0], 24000 / 1001).sound.astype(float), 1, 3)
    assert np.corrcoef(spoken, mean[: len(spoken)])[0, 1] < 0.9


def test_one_of_two_people_speaks(corpus: Path) -> None:
    for path in (corpus / "_truth" / "train").glob("*.json"):
        truth = json.loads(path.read_text())
        pictures = read_frames(corpus / "train/train_splits" / f"{path.stem}.mp4", None).mean(axis=3)
        moves = {}
        for person in truth["people"]:
            left, top, right, bottom = person["box"]
            height, width = bottom - top, right - left
            rows = slice(int(top + 0.66 * height), int(bottom - 0.08 * height))
            mouth = pictures[:, rows, int(left + width / 4) : int(right - width / 4)]
            moves[person["speaks"]] = np.abs(np.diff(mouth, axis=0)).mean()
        assert set(moves) == {True, False} and moves[True] > 2 * moves[False] > 0, path.stem


def test_defects_are_excluded_dropped_or_skipped(corpus: Path, tmp_path: Path, unaccounted: Unaccounted) -> None:
    before = {path: path.stat().st_mtime_ns for path in corpus.rglob("*.mp4")}
    write_corpus(CORPUS, corpus, workers=0, quiet=True)
    assert {path: path.stat().st_mtime_ns for path in corpus.rglob("*.mp4")} == before
    found = discover("meld", corpus)
    assert not unaccounted(corpus, found)
    excluded = {skip.clip.clip_id for skip in found.skipped if skip.clip}
    assert excluded == {key for key in excluded if defects.find("meld", key)} and len(excluded) == 9
    assert len(discover("meld", corpus, defects=False).clips) == len(found.clips) + 9
    rest = Counter(skip.reason for skip in found.skipped if not skip.clip and not skip.path.startswith("_truth"))
    assert rest == {
        Reason.NOT_A_CLIP: 8, Reason.COMPRESSED: 1, Reason.DUPLICATE_ID: 2, Reason.BAD_LABEL: 2, Reason.UNLABELLED: 2,
        Reason.MISSING_FILE: 1,
    }  # fmt: skip

    out = tmp_path / "OUT"
    first = preprocess("meld", corpus, out, run=QUIET)
    assert (first.kept, first.computed) == (4, 9)
    assert first.reasons == dict.fromkeys(["empty-file", "no-audio", "no-face", "too-short", "truncated"], 1)
    again = preprocess("meld", corpus, out, run=QUIET)
    assert again.computed == 0 and again.digest == first.digest
    shards = ShardSet(out)
    clip = shards.clips.set_index("clip_id").loc["meld/test/dia90_utt0"]
    assert clip["source"].endswith("final_videos_testdia90_utt0.mp4") and clip["split"] == "test"
    assert clip["source_fps"] == pytest.approx(24000 / 1001) and clip["fps"] == 25
    ledger = {row["source"]: row for row in shards.ledger.to_dict("records")}
    files = {path.relative_to(corpus).as_posix() for path in corpus.rglob("*") if path.is_file()}
    assert files == ledger.keys() - {"dev/dev_splits_complete/dia110_utt7.mp4"}
    corrupt = discover("meld", corpus, defects=False).clips
    with pytest.raises(ClipError, match="without a readable index"):
        probe(next(clip for clip in corrupt if clip.clip_id == "meld/train/dia125_utt3").video)
