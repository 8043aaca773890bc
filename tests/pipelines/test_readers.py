"""Readers: every layout that users have gives the same clips, and every file ends as a clip, its sound, or a reason."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from pipelines.readers import Discovery, ReaderOptions, discover
from pipelines.splits import assign, resolve
from talking_face.media.source import open_source
from talking_face.reasons import Reason, UserError

VIDEO = "video/front/angry/level_2/001.mp4"
AUDIO = "audio/angry/level_2/001.m4a"


def _touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"bytes of " + name.encode())


def _tar(path: Path, source: Path, *names: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name in names:
            archive.add(source / name, arcname=name)


def _accounted(root: Path, found: Discovery) -> set[str]:
    """Files and tar members below root that the discovery speaks of."""
    sources = [source for clip in found.clips for source in (clip.video, clip.audio) if source]
    shown = {str(source).removeprefix(f"{root}/") for source in sources}
    return shown | {skip.path for skip in found.skipped}


@pytest.mark.parametrize(
    "layout",
    [
        ["M003/" + VIDEO, "M003/" + AUDIO],
        ["Part0/M003/" + VIDEO, "Part0/M003/" + AUDIO],
        ["M003/video/1/front/angry/level_2/001.mp4", "M003/" + AUDIO],
        ["M003_video/" + VIDEO, "M003_audio/" + AUDIO],
        ["M003/front/angry/level_2/001.mp4", "M003/" + AUDIO],
    ],
)
def test_mead_folders(layout: list[str], tmp_path: Path) -> None:
    _touch(tmp_path, *layout)
    found = discover("mead", tmp_path)
    (clip,) = found.clips
    assert (clip.clip_id, clip.speaker, clip.intensity, clip.take) == ("mead/M003/front/angry/2/001", "M003", 2, "001")
    assert clip.video.path == str(tmp_path / layout[0]) and clip.audio and clip.audio.path == str(tmp_path / layout[1])
    assert clip.sentence_id is None and not found.skipped


def test_mead_tars_as_downloaded_split_and_truncated(tmp_path: Path) -> None:
    loose, root = tmp_path / "loose", tmp_path / "root"
    videos = [f"video/{view}/angry/level_1/{n:03d}.mp4" for view in ("front", "down") for n in (1, 2, 3)]
    sounds = [f"audio/angry/level_1/{n:03d}.m4a" for n in (1, 2, 3, 4)]
    _touch(loose, *videos, *sounds, "video/front/angry/level_1/._001.mp4")
    _tar(root / "M042" / "video_1.tar", loose, *videos[:2], "video/front/angry/level_1/._001.mp4")
    _tar(root / "M042" / "video_2.tar", loose, *videos[2:])
    _tar(root / "M042" / "audio.tar", loose, *sounds)
    found = discover("mead", root)
    assert [clip.take for clip in found.clips] == ["001", "002", "003"] and {c.speaker for c in found.clips} == {"M042"}
    with open_source(found.clips[2].video) as file:
        assert not isinstance(file, str) and file.read() == b"bytes of video/front/angry/level_1/003.mp4"
    reasons = {skip.path.rpartition("!")[2]: skip.detail for skip in found.skipped}
    assert reasons["video/down/angry/level_1/002.mp4"].startswith("view down")
    assert "AppleDouble" in reasons["video/front/angry/level_1/._001.mp4"]
    assert "without a video" in reasons["audio/angry/level_1/004.m4a"]
    assert len(discover("mead", root, ReaderOptions(view="all")).clips) == 6

    cut = root / "M042" / "video_2.tar"
    cut.write_bytes(cut.read_bytes()[:2200])  # whole 003 front and 001 down; the third member's header is cut
    found = discover("mead", root)
    assert [clip.take for clip in found.clips] == ["001", "002", "003"]
    assert any(skip.reason is Reason.TRUNCATED and "2 whole members" in skip.detail for skip in found.skipped)


def test_mead_accounts_for_every_file(tmp_path: Path) -> None:
    good = ["W021-1/" + VIDEO, "W021-1/" + AUDIO]
    odd = {
        "W021-1/video/front/angry/level_2/._001.mp4": Reason.NOT_A_CLIP,
        "W021-1/video/front/bored/level_2/001.mp4": Reason.BAD_LABEL,
        "W021-1/video/front/angry/level_9/001.mp4": Reason.BAD_LABEL,
        "W021-1/video/front/angry/level_2/1.mp4": Reason.NOT_A_CLIP,
        "W021-1/video/down/angry/level_2/001.mp4": Reason.NOT_A_CLIP,
        "W021-1/audio/angry/level_2/009.m4a": Reason.NOT_A_CLIP,
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
    assert [clip.speaker for clip in found.clips] == ["W021-1"]
    assert {skip.path: skip.reason for skip in found.skipped} == odd | {
        link.relative_to(tmp_path).as_posix(): Reason.NOT_A_CLIP
    }
    files = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if not p.is_dir()}
    assert _accounted(tmp_path, found) == files


def test_tar_members_cannot_leave_the_archive(tmp_path: Path) -> None:
    (tmp_path / "M003").mkdir()
    with tarfile.open(tmp_path / "M003" / "video.tar", "w") as archive:
        for name in ("../" + VIDEO, "/" + VIDEO, VIDEO):
            info = tarfile.TarInfo(name)
            archive.addfile(info)
        info = tarfile.TarInfo("video/front/angry/level_2/002.mp4")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    found = discover("mead", tmp_path)
    assert [clip.video.member for clip in found.clips] == [VIDEO]
    assert len(found.skipped) == 3


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
    assert [(skip.path, skip.reason) for skip in found.skipped] == [(str(tmp_path / "a.mp4"), Reason.DUPLICATE_ID)]


def test_splits(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"{actor}/{VIDEO}" for actor in ("M003", "M026", "W015", "W999")))
    clips = discover("mead", tmp_path).clips

    def of(preset: str, only: list = clips) -> dict[str, str | None]:
        return {clip.speaker: clip.split for clip in assign(resolve(preset, "mead", only), only)}

    assert of("auto") == of("eat4") == {"M003": "test", "M026": "train", "W015": "test", "W999": "train"}
    assert of("cmet") == {"M003": "test", "M026": "train", "W015": "test", "W999": None}
    assert of("none") == dict.fromkeys(["M003", "M026", "W015", "W999"])
    assert of("auto", clips[3:]) == {"W999": "train"} and resolve("auto", "mead", clips[3:]) == "embedded"
    with pytest.raises(UserError, match="there are: auto, none"):
        resolve("edtalk", "mead", clips)
