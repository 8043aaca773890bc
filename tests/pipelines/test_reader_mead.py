"""MEAD: every form that users have gives the same clips; a file's number is a sentence only where a scheme says so."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from cmet_pipelines import contents, defects
from cmet_pipelines.numbering import name_sentences, schemes
from cmet_pipelines.preprocess import preprocess
from cmet_pipelines.readers import Discovery, discover
from cmet_pipelines.readers.mead import MeadOptions
from cmet_pipelines.shards import ShardSet
from cmet_pipelines.splits import assign, presets, resolve
from embedded_corpus.plan import CorpusPlan
from embedded_corpus.writing import write_corpus
from talking_face.clip import Clip, MediaSource
from talking_face.media.source import open_source
from talking_face.reasons import Reason, UserError
from tests.pipelines.run_options import QUIET

LISTS = Path(__file__).resolve().parents[3] / "shared" / "data" / "lists"
VIDEO = "video/front/angry/level_2/001.mp4"
AUDIO = "audio/angry/level_2/001.m4a"
ACTORS = (
    "M003 M005 M007 M009 M011 M012 M013 M019 M022 M023 M024 M025 M026 M027 M028 M029 M030 M031 M032 M033 M034 M035 "
    "M037 M039 M040 M041 M042 W009 W011 W014 W015 W016 W017 W018 W019 W021 W023 W024 W025 W026 W028 W029 W033 W035 "
    "W036 W037 W038 W040"
)
FOUR = {"M003", "M030", "W009", "W015"}

Unaccounted = Callable[[Path, Discovery], list[str]]


def _bytes(name: str) -> bytes:
    return b"bytes of " + name.encode()


def _touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_bytes(name))


def _tar(path: Path, *names: str, inner: dict[str, bytes] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in {**{name: _bytes(name) for name in names}, **(inner or {})}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(out.getvalue())
    return out.getvalue()


@pytest.mark.parametrize(
    "files",
    [
        ["M003/" + VIDEO, "M003/" + AUDIO],
        ["Part0/M003/" + VIDEO, "Part1/M003/" + AUDIO],
        ["M003/video/1/front/angry/level_2/001.mp4", "M003/" + AUDIO],
        ["M003_video/" + VIDEO, "M003_audio/" + AUDIO],
        ["M003-20210510T101500Z-001/M003/" + VIDEO, "M003-20210510T101500Z-002/" + AUDIO],
        ["M003/front/angry/level_2/001.mp4", "M003/" + AUDIO],
        ["crop/M003_ang_2_001.mp4", "wav/M003_ang_2_001.wav"],
        ["MEAD_front/M003#angry#level_2#001.mp4", "M003/" + AUDIO],
    ],
)
def test_folders(files: list[str], tmp_path: Path, unaccounted: Unaccounted) -> None:
    _touch(tmp_path, *files)
    found = discover("mead", tmp_path)
    (clip,) = found.clips
    assert (clip.clip_id, clip.speaker, clip.intensity, clip.take) == ("mead/M003/front/angry/2/001", "M003", 2, "001")
    assert clip.video.path == str(tmp_path / files[0]) and clip.audio and clip.audio.path == str(tmp_path / files[1])
    assert clip.sentence_id is None and not found.skipped and not unaccounted(tmp_path, found)


@pytest.mark.parametrize("inside", ["M026-2", "M026-2/video", "M026-2/video/front"])
def test_the_root_may_lie_inside_an_actor(inside: str, tmp_path: Path) -> None:
    _touch(tmp_path, "M026-2/" + VIDEO, "M026-2/" + AUDIO)
    (clip,) = discover("mead", tmp_path / inside).clips
    assert clip.clip_id == "mead/M026-2/front/angry/2/001" and (clip.audio is None) == (inside != "M026-2")


def test_archives_as_downloaded(tmp_path: Path, unaccounted: Unaccounted) -> None:
    videos = [f"video/{view}/angry/level_1/{n:03d}.mp4" for view in ("front", "left_30") for n in (1, 2, 3)]
    unpacked = [name.replace("video/", "") for name in videos]
    sounds = [f"audio/angry/level_1/{n:03d}.m4a" for n in (1, 2, 3)]
    for actor in ("M003", "M042", "W021", "W021-1"):
        _tar(tmp_path / "Part0" / actor / "audio.tar", *sounds)
    _tar(tmp_path / "Part0/M003/video.tar", *videos, "video/front/angry/level_1/._001.mp4")
    _tar(tmp_path / "Part0/M042/video_1.tar", *videos[:2])
    _tar(tmp_path / "Part0/M042/video_2.tar", *videos[2:])
    _tar(tmp_path / "Part0/W021/video/1.tar", *unpacked[:1])
    _tar(tmp_path / "Part0/W021/video/2.tar", *unpacked[1:])
    inner = {f"video/{n}.tar": _tar(tmp_path / "x", *part) for n, part in ((1, unpacked[:3]), (2, unpacked[3:]))}
    (tmp_path / "x").unlink()
    _tar(tmp_path / "Part0/W021-1/video.tar", inner=inner)
    _tar(tmp_path / "W009_video.tar", *videos)
    found = discover("mead", tmp_path, MeadOptions(view="all"))
    assert not unaccounted(tmp_path, found)
    count = Counter(clip.speaker for clip in found.clips)
    assert count == {"M003": 6, "M042": 6, "W021": 6, "W021-1": 6, "W009": 6}
    for clip in found.clips:
        assert (clip.audio is None) == (clip.speaker == "W009")
        for source in filter(None, (clip.video, clip.audio)):
            with open_source(source) as file:
                assert source.member
                assert file.read() == _bytes(source.member.rpartition("!")[2])
    assert [skip.detail for skip in found.skipped] == ["an AppleDouble file, not media"]

    _touch(tmp_path, "Part0/M003/" + videos[1])  # extracted too: the file is used, not the member
    clips = {clip.clip_id: clip for clip in discover("mead", tmp_path).clips}
    assert clips["mead/M003/front/angry/1/002"].video.member is None
    assert clips["mead/M003/front/angry/1/001"].video.member is not None and len(clips) == 15

    cut = tmp_path / "Part0/M042/video_2.tar"
    cut.write_bytes(cut.read_bytes()[:2200])  # whole 003 front and 001 left; the next header is cut
    found = discover("mead", tmp_path)
    assert [clip.take for clip in found.clips if clip.speaker == "M042"] == ["001", "002", "003"]
    (row,) = [skip for skip in found.skipped if skip.path == "Part0/M042/video_2.tar"]
    assert row.reason is Reason.TRUNCATED and "2 whole members" in row.detail and not unaccounted(tmp_path, found)


def test_every_file_is_accounted_for(tmp_path: Path, unaccounted: Unaccounted) -> None:
    good = ["W021-1/" + VIDEO, "W021-1/" + AUDIO, "W021-1/audio/angry/level_2/003.m4a"]
    odd = {
        "W021-1/video/front/angry/level_2/._001.mp4": Reason.NOT_A_CLIP,
        "W021-1/video/front/bored/level_2/001.mp4": Reason.BAD_LABEL,
        "W021-1/video/front/angry/level_9/001.mp4": Reason.BAD_LABEL,
        "W021-1/video/front/angry/level_2/1.mp4": Reason.NOT_A_CLIP,
        "W021-1/video/down/angry/level_2/003.mp4": Reason.NOT_ASKED,
        "W021-1/video/behind/angry/level_2/001.mp4": Reason.NOT_A_CLIP,
        "W021-1/video/front/angry/level_2/001.m4a": Reason.NOT_A_CLIP,
        "W021-1/audio/angry/level_2/009.m4a": Reason.NOT_A_CLIP,
        "W021-1/zcopy/" + VIDEO: Reason.DUPLICATE_ID,
        "W021-1/zcopy/" + AUDIO: Reason.DUPLICATE_ID,
        "flat/M003_xyz_1_001.mp4": Reason.BAD_LABEL,
        "video28/" + VIDEO: Reason.BAD_LABEL,
        "readme.txt": Reason.NOT_A_CLIP,
        "_truth/W021-1/001.json": Reason.NOT_A_CLIP,
        ".DS_Store": Reason.NOT_A_CLIP,
    }
    _touch(tmp_path, *good, *odd)
    outside = tmp_path.parent / f"{tmp_path.name}-outside.mp4"
    outside.write_bytes(b"secret")
    link = tmp_path / "W021-1/video/front/angry/level_2/002.mp4"
    link.symlink_to(outside)
    found = discover("mead", tmp_path)
    reasons = {skip.path.removeprefix(f"{tmp_path}/"): skip.reason for skip in found.skipped}
    assert [clip.speaker for clip in found.clips] == ["W021-1"] and not unaccounted(tmp_path, found)
    assert reasons == odd | {link.relative_to(tmp_path).as_posix(): Reason.NOT_A_CLIP}
    assert any("actor unknown" in skip.detail for skip in found.skipped if skip.path.startswith("video28/"))
    with pytest.raises(UserError, match="no view 'behind'"):
        discover("mead", tmp_path, MeadOptions(view="behind"))


# -- sentences ---------------------------------------------------------------------------------------------------------


def _folder(actor: str, emotion: str, level: int, numbers: Iterable[int]) -> list[Clip]:
    return [
        Clip(
            clip_id=f"mead/{actor}/front/{emotion}/{level}/{n:03d}",
            dataset="mead",
            speaker=actor,
            video=MediaSource("x"),
            emotion=emotion,
            intensity=level,
            take=f"{n:03d}",
        )
        for n in numbers
    ]


def _sentences(scheme: str | None, actor: str, emotion: str, level: int, numbers: Iterable[int]) -> dict[int, str]:
    """sentence_id by number, where there is one, of a folder that holds these numbers."""
    numbers = list(numbers)
    clips, _ = name_sentences(scheme, _folder(actor, emotion, level, numbers), {(actor, emotion, level): set(numbers)})
    return {int(clip.take): clip.sentence_id for clip in clips if clip.sentence_id}


def test_numbers_are_no_sentences_unless_a_scheme_is_named(tmp_path: Path) -> None:
    assert _sentences(None, "M003", "angry", 1, range(1, 31)) == {}
    assert _sentences(None, "M901", "angry", 1, (1, 2, 17)) == {1: "s01", 2: "s02", 17: "s01"}
    assert _sentences("cmet", "M901", "angry", 1, (16,)) == {16: "s16"}
    assert _sentences("cmet", "M005", "angry", 1, range(1, 31)) == {}, "C-MET's list covers only four actors"
    with pytest.raises(UserError, match=r"one of embedded, cmet, cmet-release, or a CSV"):
        _sentences("emote", "M003", "angry", 1, (1,))
    table = tmp_path / "mine.csv"
    table.write_text("clip_id,sentence_id\nmead/M005/front/angry/1/002,It was dark\n")
    assert _sentences(str(table), "M005", "angry", 1, (1, 2)) == {2: "It was dark"}
    table.write_text("clip_id\nx\n")
    with pytest.raises(UserError, match="no column `sentence_id`"):
        _sentences(str(table), "M005", "angry", 1, (1, 2))


def test_cmet_numbers() -> None:
    neutral = _sentences("cmet", "M003", "neutral", 1, range(1, 41))
    assert neutral == {i: f"common-{i}" for i in (1, 2, 3)} | {30 + i: f"generic-{i}" for i in range(1, 11)}
    emotional = {i: f"common-{i}" for i in (1, 2, 3)} | {20 + i: f"generic-{i}" for i in range(1, 11)}
    assert _sentences("cmet", "M003", "happy", 3, range(1, 31)) == emotional
    renumbered = [n for n in range(1, 31) if n != 20]
    assert _sentences("cmet", "M003", "contempt", 2, renumbered) == emotional
    assert _sentences("cmet", "M003", "contempt", 2, range(1, 30)) == {}, "020 is there: not the renumbered tree"
    assert _sentences("cmet", "W009", "contempt", 2, range(1, 31)) == {}, "an audit doubts it"

    up = {i: f"common-{i}" for i in (1, 2, 3)} | {19 + i: f"generic-{i}" for i in range(1, 11)}
    assert _sentences("cmet-release", "M003", "contempt", 2, range(1, 30)) == up
    assert _sentences("cmet-release", "M003", "contempt", 2, renumbered) == {}, "ends at 030: not the release's numbers"
    assert _sentences("cmet-release", "M003", "contempt", 2, range(1, 29)) == {}, "one more is lost, who knows where"
    assert _sentences("cmet-release", "M003", "disgusted", 2, range(1, 30)) == {}, "EVP's table says otherwise"
    lost = _sentences("cmet-release", "W015", "surprised", 3, range(1, 28))
    assert set(lost.values()) == {f"generic-{i}" for i in range(1, 11)} and min(lost) == 18
    # EVP's hand table of M030 angry.
    assert _sentences("cmet-release", "M030", "angry", 3, range(1, 30)) == up


def test_schemes_against_cmets_own_list_and_the_releases_numbers() -> None:
    if not LISTS.is_dir():
        pytest.skip("../shared/data/lists is absent: numbering schemes are not compared with the real lists")
    rows = list(csv.DictReader((LISTS / "cmet_mead_test.csv").read_text().splitlines()))
    here: dict[tuple[str, str, int], set[int]] = {}
    for row in rows:
        here.setdefault((row["actor"], row["emotion"], int(row["level"])), set()).add(int(row["number"]))
    spoken = {folder: _sentences("cmet", *folder, numbers) for folder, numbers in here.items()}
    neutral = {actor: _sentences("cmet", actor, "neutral", 1, range(1, 41)) for actor in FOUR}
    known = 0
    for row in rows:
        theirs = spoken[row["actor"], row["emotion"], int(row["level"])].get(int(row["number"]))
        assert theirs is None or theirs == neutral[row["actor"]][int(row["neutral_number"])], row
        known += theirs is not None
    unsaid = sum(
        row["number"] == "020" or f"{row['actor']}/{row['emotion']}" in schemes()["cmet"]["not_said"] for row in rows
    )
    assert known == len(rows) - unsaid and known > 900

    missing = csv.DictReader((LISTS / "cmet_mead_test_missing.csv").read_text().splitlines())
    absent = {(f"{r['actor']}/{r['emotion']}/{r['level']}", int(r["number"])) for r in missing}
    assert {(folder, n) for folder, places in schemes()["cmet"]["absent"].items() for n in places} == absent

    # The release's folders end where the gaps of C-MET's renumbered ones predict; EDTalk's list cuts one of them short.
    odd = []
    for actor, folders in json.loads((LISTS / "mead_front_clip_ids.json").read_text()).items():
        for folder, numbers in folders.items() if actor in FOUR else ():
            emotion, level = folder.split("/level_")
            if not _sentences("cmet-release", actor, emotion, int(level), numbers):
                odd.append(f"{actor}/{emotion}/{level}")
    assert sorted(set(odd) - set(schemes()["cmet-release"]["not_said"])) == [
        *("M003/disgusted/1", "M003/disgusted/2", "M003/disgusted/3", "W009/angry/2"),
        *(f"{actor}/contempt/{level}" for actor in ("W009", "W015") for level in (1, 2, 3)),
    ]


def test_numbering_reaches_the_clips_of_all_views(tmp_path: Path) -> None:
    names = [f"M003/video/{view}/happy/level_1/{n:03d}.mp4" for view in ("front", "top") for n in (1, 21, 57)]
    _touch(tmp_path, *names[:2], *names[3:5])
    found = discover("mead", tmp_path, MeadOptions(view="all", numbering="cmet"))
    assert [clip.sentence_id for clip in found.clips] == ["common-1", "generic-1"] * 2
    assert any(note.startswith("numbering cmet: 4 of 4 clips have a sentence (only for") for note in found.notes)
    _touch(tmp_path, names[2])  # a number that the scheme does not know: its folder is numbered otherwise
    found = discover("mead", tmp_path, MeadOptions(view="all", numbering="cmet"))
    assert {clip.sentence_id for clip in found.clips} == {None}
    assert any("M003/happy/1" in note for note in found.notes)
    assert any("1 folders of 1 actors count past" in note for note in found.notes)


# -- tables ------------------------------------------------------------------------------------------------------------


def test_splits(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"{actor}/{VIDEO}" for actor in ("M003", "M026", "M031-1", "W015", "W017", "W999")))
    clips = discover("mead", tmp_path).clips

    def of(preset: str, only: list[Clip] = clips) -> dict[str, str | None]:
        return {clip.speaker: clip.split for clip in assign(resolve(preset, "mead", only), only)}

    plain = {"M003": "test", "M026": "train", "M031-1": "train", "W015": "test"}
    assert of("auto") == of("eat4") == plain | {"W017": "train", "W999": "train"}
    assert of("cmet") == of("edtalk") == plain | {"W017": None, "W999": None}
    assert of("emote") == plain | {"M003": "train", "W015": "train", "W017": None, "W999": None}
    assert of("cem-net") == plain | {"M031-1": "test", "W015": "train", "W017": "train", "W999": None}
    assert set(of("none").values()) == {None}
    assert of("auto", clips[-1:]) == {"W999": "train"} and resolve("auto", "mead", clips[-1:]) == "embedded"
    with pytest.raises(UserError, match="there are: auto, none, embedded, embedded-24, eat4, cmet, edtalk, emote, cem"):
        resolve("cemnet", "mead", clips)


def test_split_lists() -> None:
    sizes = {"eat4": (0, 0, 4), "cmet": (43, 0, 4), "edtalk": (39, 0, 4), "emote": (32, 7, 8), "cem-net": (40, 0, 8)}
    for name, expected in sizes.items():
        parts = [presets()[name].get(split, []) for split in ("train", "val", "test")]
        people = [re.sub(r"-\d$", "", actor) for part in parts for actor in part]
        assert tuple(map(len, parts)) == expected and len(set(people)) == len(people), name
        assert set(people) <= set(ACTORS.split()) and presets()[name]["source"], name
    drawn = sorted(ACTORS.split(), key=lambda actor: hashlib.sha256(f"cem-net/0/{actor}".encode()).hexdigest())
    assert presets()["cem-net"]["train"] == sorted(drawn[:40]) and presets()["cem-net"]["test"] == sorted(drawn[40:])


def test_tables_against_the_real_lists() -> None:
    if not LISTS.is_dir():
        pytest.skip("../shared/data/lists is absent: MEAD's tables are not compared with the real lists")
    numbers = json.loads((LISTS / "mead_front_clip_ids.json").read_text())
    assert presets()["cmet"]["train"] == (LISTS / "cmet_mead_train_ids.txt").read_text().split()
    assert {*presets()["edtalk"]["train"], *presets()["edtalk"]["test"]} == numbers.keys()
    table = contents.expected("mead")
    assert table is not None
    theirs = {
        (actor, "front", *folder.split("/level_"), len(there))
        for actor, folders in numbers.items()
        for folder, there in folders.items()
    }
    assert set(table.itertuples(index=False, name=None)) == theirs


def test_contents_and_defects_know_suffixed_actors() -> None:
    table = contents.expected("mead")
    assert table is not None and int(table["clips"].sum()) == 28040
    label = {"speaker": "M026-2", "view": "front", "emotion": "neutral", "intensity": 1}
    short = contents.missing("mead", [label] * 39)
    assert short is not None
    row = short[(short["speaker"] == "M026") & (short["emotion"] == "neutral")].iloc[0]
    assert (row["clips"], row["found"]) == (40, 39)
    assert defects.find("mead", "mead/W033/left_30/sad/1/007") and defects.find("mead", "mead/W037-1/front/happy/3/001")
    assert not defects.find("mead", "mead/W033/front/sad/2/001") and not defects.find(
        "mead", "mead/M022/front/sad/3/003"
    )


# -- on real bytes -----------------------------------------------------------------------------------------------------


def test_defects_through_preprocessing(
    tmp_path: Path, unaccounted: Unaccounted, unaccounted_in_ledger: Callable[[Path, Path], list[str]]
) -> None:
    root, out = tmp_path / "mead", tmp_path / "shards"

    def write() -> None:
        write_corpus(
            CorpusPlan("mead", speakers=1, seconds=0.4, defects=True, only=("/neutral/",)), root, workers=0, quiet=True
        )

    write()
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in root.rglob("*") if path.is_file()}
    summary = preprocess("mead", root, out, run=QUIET)
    write()
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in before} == before, "nothing was changed"
    assert not unaccounted(root, discover("mead", root)) and not unaccounted_in_ledger(root, out)
    again = preprocess("mead", root, out, run=QUIET)
    assert again.computed == 0 and again.digest == summary.digest

    shards = ShardSet(out)
    rows = {row["source"]: row for row in shards.ledger.to_dict("records")}
    lost = {source: row["reason"] for source, row in rows.items() if row["status"] == "dropped"}
    first = min(rows[f"M901/video/front/neutral/level_1/{n:03d}.mp4"]["clip_id"] for n in (1, 2, 3, 4))
    number = int(first[-3:])
    spare = [f"M901/video/front/neutral/level_1/{number + 16 * (50 + k):03d}.mp4" for k in range(8)]
    assert lost == dict(
        zip((spare[k] for k in (3, 4, 5, 6)), ("no-audio", "empty-file", "lfs-pointer", "truncated"), strict=True)
    )
    assert [rows[source]["status"] for source in spare[:3]] == ["kept"] * 3
    assert rows["W033/video/front/sad/level_1/007.mp4"]["reason"] == "known-defect"
    assert rows["Part0/W900-1/video.tar"]["reason"] == "truncated"
    assert rows["Part0/W900-2/video.tar"]["detail"].endswith("unpack it: tar -xzf video.tar")

    # In every form and with either sound: the same pictures, the same sentence.
    clips = shards.clips.set_index("clip_id")
    forms = ["M900", "W900", "M900-1", "M900-2", "W900-1", "M901-2"]
    same = [first.replace("M901", actor) for actor in forms] + [rows[source]["clip_id"] for source in spare[:3]]
    for clip_id in same:
        assert np.array_equal(shards.frames(clip_id), shards.frames(first)), clip_id
        assert clips.at[clip_id, "sentence_id"] == clips.at[first, "sentence_id"]
        loud = np.abs(shards.audio(clip_id)).max() / np.abs(shards.audio(first)).max()
        assert 0.8 < loud < 1.25, clip_id
    own_track = {clip_id for clip_id in same if not isinstance(clips.at[clip_id, "audio_source"], str)}
    assert own_track == {rows[spare[0]]["clip_id"], rows[spare[2]]["clip_id"], *same[4:6]}
    assert clips.at[rows[spare[2]]["clip_id"], "warnings"].tolist() == ["sound-file-unreadable-video-track-used"]
