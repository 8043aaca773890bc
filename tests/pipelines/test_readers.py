"""Readers: every layout that users have gives the same clips, and every file ends as a clip, its sound, or a reason."""

from __future__ import annotations

from pathlib import Path

from pipelines.readers import discover
from talking_face.reasons import Reason


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
    assert [(skip.path, skip.reason) for skip in found.skipped] == [(str(tmp_path / "a.mp4"), Reason.DUPLICATE_ID)]
