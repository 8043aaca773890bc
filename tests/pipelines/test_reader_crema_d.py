"""CREMA-D: the names, votes and hashes of the real release, and the embedded corpus in its form with its defects."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cmet_pipelines import contents, defects
from cmet_pipelines.preprocess import preprocess
from cmet_pipelines.readers import Discovery, discover
from cmet_pipelines.readers.crema_d import CremaDOptions
from cmet_pipelines.splits import assign, presets, resolve
from embedded_corpus.layouts import crema_d as layout
from embedded_corpus.plan import CorpusPlan, clip_specs
from embedded_corpus.writing import write_corpus
from talking_face.media import probe
from talking_face.reasons import Reason, UserError
from tests.pipelines.run_options import QUIET

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
PAIRS = {
    frozenset({"1006_TIE_HAP_XX", "1006_TIE_NEU_XX"}),
    frozenset({"1013_WSI_DIS_XX", "1013_WSI_SAD_XX"}),
    frozenset({"1017_IWW_ANG_XX", "1017_IWW_FEA_XX"}),
}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 327666\n"
VOTES = '"","FileName","VoiceVote","VoiceLevel","FaceVote","FaceLevel","MultiModalVote","MultiModalLevel"\n'


def shared(name: str) -> list[dict[str, str]]:
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"../shared/data/{name} is absent: the test on the real release is skipped")
    return list(csv.DictReader(path.read_text("utf-8").splitlines()))


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A tree of empty files under all names of the release, with its own table of votes; and the names."""
    names = [row["Filename"] for row in shared("labels/crema_d_SentenceFilenames.csv")]
    shared("labels/crema_d_summaryTable.csv")
    root = tmp_path_factory.mktemp("release") / "CREMA-D"
    for folder in ("VideoFlash", "AudioWAV", "processedResults"):
        (root / folder).mkdir(parents=True)
    for name in names:
        (root / "VideoFlash" / f"{name}.flv").touch()
        (root / "AudioWAV" / f"{name}.wav").touch()
    table = (SHARED / "labels/crema_d_summaryTable.csv").read_bytes()
    (root / "processedResults/summaryTable.csv").write_bytes(table)
    return root, names


def test_the_release_by_its_names(
    release: tuple[Path, list[str]], unaccounted: Callable[[Path, Discovery], list[str]]
) -> None:
    root, names = release
    found = discover("crema-d", root)
    out = {skip.clip.clip_id.removeprefix("crema-d/") for skip in found.skipped if skip.clip}
    broken = {"1076_MTI_NEU_XX", "1076_MTI_SAD_XX", "1064_TIE_SAD_XX", "1064_IEO_DIS_MD"}
    assert out == broken.union(*PAIRS) and len(names) == 7442
    assert {clip.clip_id.removeprefix("crema-d/") for clip in found.clips} == set(names) - out
    assert unaccounted(root, found) == []
    assert "crema-d/1040_ITH_SAD_XX" in {clip.clip_id for clip in found.clips}  # its sound had another name, no more
    everything = discover("crema-d", root, defects=False).clips
    assert len(everything) == 7442 and all(clip.audio for clip in everything)
    assert Counter(clip.emotion for clip in everything) == {
        **dict.fromkeys(("angry", "disgusted", "fear", "happy", "sad"), 1271), "neutral": 1087,
    }  # fmt: skip
    assert Counter(clip.intensity for clip in everything) == {None: 6077, 1: 455, 2: 455, 3: 455}
    by_id = {clip.clip_id: clip for clip in everything}
    one = by_id["crema-d/1091_IEO_HAP_MD"]
    assert (one.speaker, one.emotion, one.intensity, one.sentence_id) == ("1091", "happy", 2, "IEO")
    assert one.transcript == "It's eleven o'clock."
    # 72.2 % and 420 ties; the reference's own figures.
    assert any("5374 of 7442 clips (72.2%), 420 are ties" in note for note in found.notes)
    voted = {c.clip_id: c for c in discover("crema-d", root, CremaDOptions(emotion_label="voted"), defects=False).clips}
    assert sum(clip.emotion is None for clip in voted.values()) == 420
    assert all(clip.emotion == clip.emotion_voted == by_id[name].emotion_voted for name, clip in voted.items())
    assert voted["crema-d/1001_IEO_HAP_LO"].emotion == "happy"
    absent = contents.missing("crema-d", [{"speaker": clip.speaker} for clip in everything])
    assert absent is not None and absent.empty
    assert int(contents.expected("crema-d")["clips"].sum()) == 7442  # type: ignore[index]


def test_splits_are_disjoint(release: tuple[Path, list[str]]) -> None:
    clips = discover("crema-d", release[0]).clips
    assert resolve("auto", "crema-d", clips) == "crema-speaker"
    for preset, key, shares in (
        ("crema-speaker", "speaker", {"train": 64, "val": 9, "test": 18}),
        ("cmet-crema-d", "sentence_id", {"train": 9, "test": 3}),
    ):
        sets: dict[str, set[str]] = {}
        for clip in assign(preset, clips):
            assert clip.split is not None
            sets.setdefault(clip.split, set()).add(getattr(clip, key))
        assert {split: len(names) for split, names in sets.items()} == shares
        assert sum(shares.values()) == len(set().union(*sets.values()))
    by_sentence = assign("cmet-crema-d", clips)
    assert {c.sentence_id for c in by_sentence if c.split == "test"} == {"TAI", "IOM", "IWL"}


def test_the_drawn_speakers_are_drawn_as_the_table_says() -> None:
    actors = sorted(
        map(str, range(1001, 1092)), key=lambda a: hashlib.sha256(f"crema-speaker/0/{a}".encode()).hexdigest()
    )
    table = presets()["crema-speaker"]
    assert (table["train"], table["val"], table["test"]) == (
        sorted(actors[:64]), sorted(actors[64:73]), sorted(actors[73:]),
    )  # fmt: skip


def test_defects_are_what_the_hashes_say(release: tuple[Path, list[str]]) -> None:
    files = {row["path"]: row for row in shared("lists/crema_d_media_sha256.csv")}
    wavs: dict[str, set[str]] = {}
    for path, row in files.items():
        if path.startswith("AudioWAV/"):
            wavs.setdefault(row["sha256"], set()).add(Path(path).stem)
    equal = {frozenset(names) for names in wavs.values() if len(names) > 1}
    assert equal == PAIRS
    reasons = {row.key.removeprefix("crema-d/"): row for row in defects.table("crema-d")}
    assert {name for name, row in reasons.items() if "byte for byte" in row.reason} == set().union(*equal)
    assert all(row.source for row in reasons.values())
    bytes_of = {Path(path).stem: int(row["bytes"]) for path, row in files.items() if path.endswith(".flv")}
    ordered = sorted(bytes_of, key=bytes_of.__getitem__)
    assert ordered[:2] == ["1076_MTI_NEU_XX", "1064_TIE_SAD_XX"] and ordered[-1] == "1064_IEO_DIS_MD"
    for name in (*ordered[:2], ordered[-1]):
        assert f"{bytes_of[name]} bytes" in reasons[name].source


def test_cmets_test_list_names_clips_of_the_release(release: tuple[Path, list[str]]) -> None:
    rows = shared("lists/cmet_crema_d_test.csv")
    targets = {f"{row['actor']}_{row['sentence']}_{row['emotion']}_{row['level']}" for row in rows}
    assert len(targets) == 1546 and targets <= set(release[1])
    excluded = {name for name in targets if defects.find("crema-d", f"crema-d/{name}")}
    assert excluded == {"1013_WSI_SAD_XX", "1017_IWW_FEA_XX"}


def _touch(root: Path, *names: str, data: bytes = b"media") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def test_re_uploads_old_names_and_pointers(tmp_path: Path, unaccounted: Callable[[Path, Discovery], list[str]]) -> None:
    _touch(
        tmp_path,
        *("VideoFlash/1040_ITH_SAD_XX.flv", "AudioWAV/1040_ITH_SAD_X.wav"),
        *("VideoFlash/1015_DFA_ANG_XX.flv", "crema_test/test/s15/1015_DFA_ANG_XX.mp4", "copy/1015_DFA_ANG_XX.flv"),
        *("crema_test/test/s15/1015_DFA_HAP_XX.mp4", "AudioWAV/1015_DFA_HAP_XX.wav", "old/1015_DFA_HAP_XX.wav"),
        *("VideoFlash/1001_IEO_HAP_HI.flv", "AudioMP3/1001_IEO_HAP_HI.mp3"),
        *("crema_test/1002_IEO_NEU_XX.mp4", "AudioWAV/1003_IEO_NEU_XX.wav", "VideoFlash/intro.flv", "notes.txt"),
    )
    _touch(tmp_path, "VideoFlash/1002_IEO_NEU_XX.flv", "AudioWAV/1001_IEO_HAP_HI.wav", data=POINTER)
    found = discover("crema-d", tmp_path)
    used = {
        clip.clip_id.removeprefix("crema-d/"): [
            source and source.path.removeprefix(f"{tmp_path.resolve()}/") for source in (clip.video, clip.audio)
        ]
        for clip in found.clips
    }
    assert used == {
        "1001_IEO_HAP_HI": ["VideoFlash/1001_IEO_HAP_HI.flv", None],  # its WAV is a pointer, and an MP3 is not taken
        "1002_IEO_NEU_XX": ["crema_test/1002_IEO_NEU_XX.mp4", None],  # its FLV is a pointer
        "1015_DFA_ANG_XX": ["VideoFlash/1015_DFA_ANG_XX.flv", None],
        "1015_DFA_HAP_XX": ["crema_test/test/s15/1015_DFA_HAP_XX.mp4", "AudioWAV/1015_DFA_HAP_XX.wav"],
        "1040_ITH_SAD_XX": ["VideoFlash/1040_ITH_SAD_XX.flv", "AudioWAV/1040_ITH_SAD_X.wav"],
    }
    reasons = Counter(skip.reason for skip in found.skipped)
    assert reasons == {Reason.LFS_POINTER: 2, Reason.DUPLICATE_ID: 3, Reason.NOT_A_CLIP: 4}
    assert all("git lfs pull" in skip.detail for skip in found.skipped if skip.reason is Reason.LFS_POINTER)
    assert unaccounted(tmp_path, found) == []


@pytest.mark.parametrize(
    ("files", "data", "words"),
    [
        (["VideoFlash/1001_IEO_HAP_HI.flv", "AudioWAV/1001_IEO_HAP_HI.wav"], POINTER, "2 files .* git lfs pull"),
        (["AudioWAV/1001_IEO_HAP_HI.wav"], b"RIFF", "no video; VideoFlash/"),
        (["VideoFlash/1001_IEO_HAP_HI.flv", "summaryTable.csv"], b"a,b\n1,2\n", "no column `FileName`"),
    ],
)
def test_a_download_without_its_media_is_told(tmp_path: Path, files: list[str], data: bytes, words: str) -> None:
    _touch(tmp_path, *files, data=data)
    with pytest.raises(UserError, match=words):
        discover("crema-d", tmp_path)


def test_votes(tmp_path: Path) -> None:
    names = ("1001_IEO_HAP_HI", "1001_IEO_SAD_HI", "1001_IEO_ANG_HI", "1040_ITH_SAD_XX")
    _touch(tmp_path, *(f"VideoFlash/{name}.flv" for name in names))
    voted = CremaDOptions(emotion_label="voted")
    with pytest.raises(UserError, match=r"summaryTable\.csv is missing"):
        discover("crema-d", tmp_path, voted)
    rows = [
        '"1","1001_IEO_HAP_HI","N","1","N","1","H","1"', '"2","1001_IEO_SAD_HI","S","1","S","1","F:S","1:2"',
        '"3","1040_ITH_SAD_X","S","1","S","1","N","1"', '"4","1001_IEO_ANG_HI","A","1","A","1","?","1"',
    ]  # fmt: skip
    text = VOTES.replace("FileName", "fileName") + "\n".join(rows)  # fileName: as the README spells it
    _touch(tmp_path, "processedResults/summaryTable.csv", data=text.encode())
    found = discover("crema-d", tmp_path, voted)
    assert {clip.clip_id[8:]: clip.emotion for clip in found.clips} == {
        "1001_IEO_ANG_HI": None, "1001_IEO_HAP_HI": "happy", "1001_IEO_SAD_HI": None, "1040_ITH_SAD_XX": "neutral",
    }  # fmt: skip
    (table,) = [skip for skip in found.skipped if skip.path.endswith(".csv")]
    assert table.detail == "votes on 3 clips, read, and 1 line that cannot be read"
    assert any("agree on 1 of 3 clips (33.3%), 1 are ties; 1 clips stand in no vote" in note for note in found.notes)


def test_the_embedded_corpus_has_cremas_names() -> None:
    specs = layout.select(clip_specs(8, takes=5))
    names = [layout.paths(Path(), spec)[0].stem for spec in specs]
    assert len(set(names)) == len(names) and len(layout.select(clip_specs(1))) == 24
    plain = {name[:8] for name in names if "_NEU_" in name}
    assert all(name[:8] in plain for name in names)  # actor and sentence
    levels = {(name[5:8] == "IEO" and "_NEU_" not in name, name[-2:]) for name in names}
    assert levels == {(True, "LO"), (True, "MD"), (True, "HI"), (False, "XX")}
    table = presets()["embedded-crema-d"]
    assert {name[:4] for name in names} == {*table["train"], *table["test"]} and len(table["test"]) == 4
    with pytest.raises(UserError, match="98 actors"):
        layout.select(clip_specs(99))


def test_the_defects_on_real_bytes(tmp_path: Path, unaccounted: Callable[[Path, Discovery], list[str]]) -> None:
    root, out = tmp_path / "D", tmp_path / "out"
    plan = CorpusPlan("crema-d", speakers=1, seconds=0.5, defects=True, only=("/happy/", "/neutral/"))
    write_corpus(plan, root, workers=0, quiet=True)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert write_corpus(plan, root, workers=0, quiet=True).written == 0
    assert before == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}

    video = probe(root / "VideoFlash/1901_IEO_HAP_MD.flv")
    assert video.video and video.audio and (video.container, video.video.codec) == ("flv", "flv")
    assert (video.video.width, video.video.height, video.audio.rate) == (480, 360, 44100)
    assert video.video.fps == pytest.approx(30000 / 1001, abs=0.01) and video.audio.codec.startswith("mp3")
    sound = probe(root / "AudioWAV/1901_IEO_HAP_MD.wav").audio
    assert sound and (sound.rate, sound.channels, sound.codec) == (16000, 1, "pcm_s16le")

    found = discover("crema-d", root)
    assert unaccounted(root, found) == []
    assert len([skip for skip in found.skipped if skip.clip]) == 10
    lists = tmp_path / "list.csv"  # one clip of the good, and all of actor 1999
    spoilt = [clip.clip_id for clip in found.clips if clip.speaker == "1999"]
    lists.write_text("clip_id\ncrema-d/1901_IEO_HAP_HI\n" + "\n".join(spoilt))
    from cmet_pipelines.processing import ProcessingSettings

    preprocess("crema-d", root, out, ProcessingSettings(clips=str(lists)), run=QUIET)
    ledger = {row["clip_id"]: row for row in pq.read_table(out / "ledger.parquet").to_pylist() if row["clip_id"]}
    outcome = {name: row["reason"] for name, row in ledger.items() if row["status"] in ("kept", "dropped")}
    assert Counter(outcome.values()) == {"": 5, "truncated": 1, "empty-file": 1, "no-face": 1}
    kept = pq.read_table(out / "clips.parquet").to_pylist()
    by_sound = {row["source"]: row["audio_source"] for row in kept if row["speaker"] == "1999"}
    silent = next(path.stem for path in (root / "AudioMP3").iterdir())
    assert by_sound[f"VideoFlash/{silent}.flv"] == f"AudioWAV/{silent}.wav"
    assert probe(root / f"VideoFlash/{silent}.flv").audio is None
    assert sum(sound is None for sound in by_sound.values()) == 1  # the one whose WAV is a pointer
    assert any(str(sound).endswith("_X.wav") for sound in by_sound.values())
    assert any(source.startswith("crema_test/") for source in by_sound)
    assert all(row["warnings"] == [] for row in kept)
