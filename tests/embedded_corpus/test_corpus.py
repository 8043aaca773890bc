"""The corpus on disk: MEAD's folders and containers, the same bytes however it is made, and what networks see in it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cmet_pipelines.readers.mead import MeadOptions, discover
from embedded_corpus.clip import ClipSpec
from embedded_corpus.layouts import layout
from embedded_corpus.plan import CorpusPlan, clip_specs
from embedded_corpus.writing import write_corpus
from talking_face.emotions import EMOTIONS
from talking_face.media.reading import probe
from talking_face.reasons import UserError
from talking_face.sealed import Damaged
from tests.models import models

SMALL = CorpusPlan("mead", speakers=2, size="320x180", seconds=0.5, only=("/angry/level_1",))


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_every_emotional_clip_has_a_neutral_one_of_the_same_sentence() -> None:
    specs = clip_specs(8, takes=2)
    assert len(specs) == 512 and len({s.key for s in specs}) == 512
    plain = {(s.speaker, s.sentence_ids[0]) for s in specs if s.emotion == "neutral"}
    assert all((s.speaker, s.sentence_ids[0]) in plain for s in specs)
    assert len({s for _, s in plain}) == 16
    assert all(s.sentence_ids[0] == f"s{1 + (s.take - 1) % 16:02d}" for s in clip_specs(9, takes=5))
    one = [s for s in clip_specs(8) if s.speaker == "M902"]
    assert len(one) == 32 and sum(s.level == 3 for s in one) == 14 and sum(s.emotion == "neutral" for s in one) == 4


def test_same_bytes_with_other_workers_and_after_an_interruption(tmp_path: Path, capsys) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    assert write_corpus(SMALL, a, workers=2, quiet=True).written == 2
    write_corpus(SMALL, b, workers=0, quiet=True)
    first = hashes(a)
    assert first == hashes(b) and len(first) == 7
    # As a killed run leaves it: a clip without its truth, and half a file under a temporary name.
    (b / "_truth/M901/front/angry/level_1/002.json").unlink()
    (b / "W901/video/front/angry/level_1/.002.77.part.mp4").write_bytes(b"half")
    assert write_corpus(SMALL, b, workers=0, quiet=True).written == 1
    assert hashes(b) == first
    # A damaged ground truth is made again; damaged settings are named.
    truth, note = b / "_truth/M901/front/angry/level_1/002.json", b / "_truth/synth.json"
    for bad in (truth.read_bytes().replace(b"angry", b"angrz"), b"", b"null"):
        truth.write_bytes(bad)
        assert write_corpus(SMALL, b, workers=0, quiet=True).written == 1 and hashes(b) == first
        assert f"{truth} is damaged (" in capsys.readouterr().err
    for bad in (note.read_bytes().replace(b"320", b"328"), b"{}", b"[1]", b"\xff"):
        note.write_bytes(bad)
        with pytest.raises(Damaged, match=r"synth\.json is damaged .*delete the folder"):
            write_corpus(SMALL, b, workers=0, quiet=True)
    note.write_bytes((a / "_truth/synth.json").read_bytes())
    with pytest.raises(UserError, match="other settings \\(seed\\)"):
        write_corpus(replace(SMALL, seed=1), b, quiet=True)


def test_files_are_meads(tmp_path: Path) -> None:
    write_corpus(replace(SMALL, speakers=1), tmp_path / "c", workers=0, quiet=True)
    root = (tmp_path / "c").resolve()
    info = probe(root / "M901/video/front/angry/level_1/002.mp4")
    assert info.video and info.audio
    assert (info.video.codec, info.video.fps, info.video.width, info.video.height) == ("h264", 30, 320, 180)
    assert info.video.pix_fmt in ("yuvj444p", "yuv444p") and info.duration == pytest.approx(0.5, abs=0.05)
    sound = probe(root / "M901/audio/angry/level_1/002.m4a").audio
    assert sound and (sound.codec, sound.rate, sound.channels) == ("aac", 48000, 2)
    found = discover(root, MeadOptions())
    assert [c.clip_id for c in found.clips] == ["mead/M901/front/angry/1/002"] and found.clips[0].audio
    truth = json.loads((root / "_truth/M901/front/angry/level_1/002.json").read_text())
    assert truth["text"] and truth["phones"] and {len(v) for v in truth["frames"].values()} == {15}


def test_flat_folder_with_labels(tmp_path: Path) -> None:
    write_corpus(replace(SMALL, layout="clips", speakers=1), tmp_path / "c", workers=0, quiet=True)
    lines = (tmp_path / "c/labels.csv").read_text().splitlines()
    assert lines[0].startswith("file,speaker,emotion,intensity,") and lines[1].startswith(
        "M901_angry_1_002.mp4,M901,angry,1,"
    )
    assert (tmp_path / "c/M901_angry_1_002.mp4").is_file()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layout": "imagenet"}, "there are mead"),
        ({"size": "huge"}, "WIDTHxHEIGHT"),
        ({"size": "100x360"}, "as wide"),
        ({"speakers": 0}, "1 to 198"),
        ({"only": ("nobody",)}, "a key is like"),
    ],
)
def test_what_cannot_be_is_refused_in_words(tmp_path: Path, change: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        write_corpus(replace(CorpusPlan("mead"), **change), tmp_path / "c")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not an embedded corpus"):
        write_corpus(SMALL, tmp_path, quiet=True)


def test_one_sentence_is_each_emotion_once_and_the_same_words() -> None:
    plan = CorpusPlan("mead", speakers=20, clips="one-sentence")
    specs = plan.specs(layout("mead"), "640x360")
    by_speaker: dict[str, list[ClipSpec]] = {}
    for spec in specs:
        by_speaker.setdefault(spec.speaker, []).append(spec)
    assert {len(own) for own in by_speaker.values()} == {8} and len(specs) == 160
    for own in by_speaker.values():
        assert {spec.emotion for spec in own} == set(EMOTIONS) and len({spec.sentence_ids for spec in own}) == 1
        assert all(spec.level == (1 if spec.emotion == "neutral" else 3) for spec in own)
    assert len({own[0].take for own in by_speaker.values()}) == 16
    full = {spec.key: spec for spec in CorpusPlan("mead", speakers=20).specs(layout("mead"), "640x360")}
    assert "clips" not in CorpusPlan("mead").settings("640x360"), "folders of earlier versions are still accepted"
    assert plan.settings("640x360")["clips"] == "one-sentence" and len(full) == 640
    assert plan.settings("640x360")["speech"] == "cut", "a folder whose sentences were spoken faster is refused"
    assert all(spec.cut for spec in specs) and not any(spec.cut for spec in full.values())


def test_networks_believe_in_the_faces(tmp_path: Path) -> None:
    """Six clips of two speakers through the same measurement as the whole corpus gets."""
    pytest.importorskip("mediapipe")
    pytest.importorskip("dlib")
    from embedded_corpus.acceptance import identity_numbers, lip_separation, measure_clip

    keys = [
        f"/{emotion}/{take}"
        for emotion in ("happy/level_3", "sad/level_3", "neutral/level_1")
        for take in ("001", "005")
    ]
    write_corpus(CorpusPlan("mead", speakers=2, only=tuple(keys)), tmp_path / "c", workers=2, quiet=True)
    clips = []
    for truth in sorted((tmp_path / "c/_truth").glob("*/front/*/*/*.json")):
        speaker, view, *rest = truth.relative_to(tmp_path / "c/_truth").with_suffix(".mp4").parts
        clips.append(measure_clip(tmp_path.joinpath("c", speaker, "video", view, *rest), truth, files=models()))
    assert len(clips) == 6
    assert all(c.mesh_found == c.frames and c.hog_found >= c.hog_tried - 1 for c in clips)
    assert min(c.mouth_r for c in clips) >= 0.9
    assert min(lip_separation(clips).values()) > 0.02
    who = identity_numbers(clips)
    assert who["nearest_same"] == 1 and who["means_min"] >= 0.6
    assert min(c.energy_r for c in clips) > 0.5
    assert np.isfinite([c.pitch for c in clips]).all()
