"""Writes one valid example of every kind of structured file that a command reads, small enough to be copied per try."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.hostile.forked import call, command

DATA = "shards"  # the shard set: 4 speakers of the training split, 2 of the test split, 3 emotions
_SPLITS = {"A": "train", "B": "train", "C": "train", "D": "train", "E": "test", "F": "test"}
METRIC = "psnr:frame-mean"

TEXTS = {
    "setting.toml": """name = "to-happy"
title = "To happy"
summary = "The target is happy."
split = "test"
draw = "cells"
reference = "other-emotion"
reference_emotions = "non-neutral"
reference_frames = 5
reference_frame_rule = "random"
target_emotions = ["happy"]
clips_per_cell = 1
seeds = 2
emotion_audio_clips = 2
disjoint = ["speaker", "clip"]
shared = ["sentence"]
metrics = ["psnr", "ssim"]
""",
    "listed.toml": """name = "listed"
title = "Listed"
summary = "Rows of a list."
draw = "rows"
rows = "rows.csv"
reference = "neutral"
seeds = 1
metrics = ["ea"]
""",
    "rows.csv": """speaker,emotion,ground_truth_clip,source_clip,sentence_id
E,happy,clips/E/happy/1,clips/E/neutral/1,
F,sad,clips/F/sad/1,clips/F/neutral/1,
""",
    "program.toml": """name = "still"
title = "Still"
summary = "The first reference frame, repeated."
kind = "command"
revision = "1"
licence = "yours"
sees = ["reference-frames", "emotion-label"]
notes = ["a note"]

[command]
command = ["/bin/false", "{reference_image}", "{target_emotion}", "{n_frames}", "{output}"]
folder = "."
environment = {A = "1"}
emotions = {happy = "joy"}
deadline_s = 20.0
length = "cut-or-hold-last"

[output]
fps = 25.0
size = 256

[paper]
title = "A paper"
venue = "A venue"
year = 2020
arxiv = "2001.00001"

[code]
released = true
repository = "owner/name"

[[weights]]
file = "a.pth"
bytes = 10
""",
    "class.toml": """name = "sway"
title = "Sway"
summary = "The first reference frame."
kind = "python"
revision = "1"
licence = "yours"
sees = ["reference-frames"]
target = "sway:Sway"

[process]
folders = ["."]
environment = {A = "1"}
deadline_s = 20.0
""",
    "finished.toml": """name = "finished"
title = "Finished"
summary = "Videos from elsewhere."
kind = "videos"
revision = "1"
licence = "yours"
sees = ["reference-frames"]

[videos]
folder = "made"
pattern = "{setting}/{pair}.mp4"
""",
    "sway.py": '''import numpy as np


class Sway:
    """The first reference frame."""

    name = "sway"
    revision = "1"
    title = "Sway"
    sees = frozenset({"reference-frames"})

    def generate(self, case):
        return np.stack([case.reference_frames[0]] * case.n_frames)
''',
    "own_metric.py": '''"""A metric."""
from cmet_metrics.psnr import Psnr


class Own(Psnr):
    """The peak signal-to-noise ratio again."""

    name = "own"
    variant = "mine"
''',
    "config.toml": """fps = 25.0
align = "box"
size = 64
enlarge = 1.5
codec = "png"
require_audio = false
min_frames = 2
max_seconds = 20.0
min_valid_fraction = 0.5
split = "none"
defects = true
deadline_s = 20.0
""",
    "labels.csv": "file,speaker,emotion,intensity,split,transcript\n"
    'a.mp4,s1,happy,2,test,"one, two"\nb.mp4,s2,sad,,train,three\n',
    "list.csv": "clip_id,emotion\nclips/a,happy\nclips/b,\n",
    "numbering.csv": "clip_id,sentence_id\nmead/M003/front/happy/1/001,s01\n",
    "cmet.toml": """base = "demo"
steps = 2
rate = 1e-3
strength = 1.0

[connector]
width = 16
layers = 1
heads = 2
feed_forward = 16
dropout = 0.0

[sampling]
batch = 4
identity_noise = 0.5
""",
    "cem-net.toml": """base = "demo"

[audio2mouth]
steps = 2
batch = 2
rate = 1e-3
bands = 2

[audio2mouth.net]
width = 16
layers = 1

[aee]
steps = 2

[ebm.weights]
picture = 0.3
""",
    "values.csv": "metric,degradation,step,group,clip,value,reason,offset\n"
    + "".join(
        f"{METRIC},{how},{step},embedded,{clip},{value},,\n"
        for clip in ("a", "b")
        for how, step, value in (("none", "", 40), ("stand-in", "", 30), ("stand-in+move", "1", 29), ("blur", "1", 28))
    ),
    "media/a.mp4": "not a video",
    "media/b.mp4": "not a video either",
    "mead/M003/video/front/happy/level_1/001.mp4": "not a video",
    "crema/VideoFlash/1001_DFA_ANG_XX.flv": "not a video",
    "crema/processedResults/summaryTable.csv": '"","FileName","VoiceVote","FaceVote","MultiModalVote"\n'
    '"1","1001_DFA_ANG_XX","A","A:D","A"\n',
    "meld/train_splits/dia0_utt0.mp4": "not a video",
    "meld/train_sent_emo.csv": "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,"
    'StartTime,EndTime\n1,"Oh, my.",Joey,joy,positive,0,0,4,7,"00:20:57,256","00:21:00,049"\n',
    "lrs2/mvlrs_v1/main/5535415699068794046/00001.mp4": "not a video",
    "lrs2/mvlrs_v1/main/5535415699068794046/00001.txt": "Text:  WHEN YOU ARE COOKING CHIPS\nConf:  4\n",
    "lrs2/train.txt": "5535415699068794046/00001\n",
    "cache/weights/pins.json": json.dumps({"inception_v3_fid": "0" * 64}),
}


def write_world(folder: Path, small: bool = False) -> Path:
    """Writes all examples below `folder`; returns the folder. It takes about 20 s, mostly for two small trainings.

    `small` writes only the texts and the shard set, in 1 s.

    Raises RuntimeError if a command of the suite fails on its valid input.
    """
    folder.mkdir(parents=True)
    for name, text in TEXTS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    (folder / "made").mkdir()
    _in_fork(folder, "shard set", lambda: _write_shards(folder / DATA, small))
    if small:
        return folder
    run = ("run", "--data", DATA, "--out", "run", "--setting", "neutral-base", "--max-pairs", "2", "--seeds", "1")
    steps: tuple[Sequence[str], ...] = (
        ("pairs", "neutral-base", "--data", DATA, "-o", "pairs.parquet", "--max-pairs", "2", "--seeds", "1"),
        ("pairs", "neutral-base", "--data", DATA, "-o", "pairs.csv", "--max-pairs", "2", "--seeds", "1"),
        (*run, "--method", "static-reference", "--method", "source-video", "--metrics", METRIC, "--quiet"),
        ("report", "emotion-proportion", "--run", "run", "--data", DATA, "--clips", "1", "--quiet"),
        ("calibrate", "--values", "values.csv", "--out", "calibration"),
        ("train", "cmet", "--data", DATA, "--config", "cmet.toml", "--quiet"),
        ("preprocess", "clips", "media", "dropped", "--allow-failures", "1", "--workers", "0", "--quiet"),
        (*("study", "make", "--run", "run", "--setting", "neutral-base", "--data", DATA, "--out", "study", "--quiet"),
         *("--method", "static-reference", "--method", "source-video", "--raters", "2", "--per-rater", "2")),
    )  # fmt: skip
    for words in steps:
        _in_fork(folder, " ".join(words[:2]), command(words))
    videos = folder / "run" / "videos" / "static-reference" / "neutral-base"
    shutil.copytree(videos, folder / "made" / "neutral-base")
    _write_answers(folder)
    return folder


def _in_fork(folder: Path, name: str, function: object) -> None:
    log = folder.parent / "world.log"

    def inside() -> int | None:
        import os

        os.chdir(folder)
        return function()  # type: ignore[operator, no-any-return]

    ended, _ = call(inside, log, 240)
    if ended.hung or ended.status:
        raise RuntimeError(f"{name} failed on valid input: {ended}")


def _write_shards(folder: Path, small: bool) -> None:
    from cmet_pipelines.frames_codec import get_codec
    from tests.cmet_eval.conftest import make_record, write_shard_set
    from tests.cmet_reference.test_evaluators import TINY, blendshapes, clip

    records = []
    for seed, (speaker, emotion) in enumerate(itertools.product(_SPLITS, ("neutral", "happy", "sad"))):
        frames, landmarks, audio = clip(seed)
        labels = {"clip_id": f"clips/{speaker}/{emotion}/1", "speaker": speaker, "emotion": emotion, "take": "1"}
        arrays = {"landmarks": landmarks, "landmarks_smoothed": landmarks, "blendshapes": blendshapes(emotion, seed)}
        pictures = get_codec("png").encode(frames)
        labels |= {"split": _SPLITS[speaker], "frames": pictures, "audio": audio}
        records.append(make_record(seed, len(frames), **labels, **arrays))
    write_shard_set(folder, records)
    if not small:
        from cmet_reference.evaluators.train import train_evaluators

        train_evaluators(folder, settings=TINY, quiet=True)


def _write_answers(folder: Path) -> None:
    """Two raters' files. Every rater's pages are in the study's page, index.html."""
    import re

    text = (folder / "study" / "index.html").read_text("utf-8")
    study = next(json.loads(found) for found in re.findall(r"\{.*\}", text) if '"plans"' in found)
    for rater, pages in enumerate(study["plans"]):
        values = {question[0]: 1 + rater for question in study["questions"]}
        answers = [{"videos": [Path(video).name for video in page["videos"]], "values": values} for page in pages]
        known = json.loads((folder / "study" / "key.json").read_text())["videos"]
        for page, answer in zip(pages, answers, strict=True):
            answer["videos"] = [name for video in page["videos"] for name in known if video.endswith(Path(name).name)]
        path = folder / "answers" / f"rater-{rater + 1}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            json.dumps(
                {"study": study["study"], "rater": rater, "plan": study["digests"][rater]} | {"answers": answers}
            )
        )
