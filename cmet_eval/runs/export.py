"""Exports a pair list as plain files, for methods that run in their own environment on another machine.

    DIR/pairs.csv                 one row per pair: input files, emotions, number of frames, output file name
    DIR/PAIR/reference_0.png ...  reference frames
    DIR/PAIR/source.mp4           source clip with its own sound
    DIR/PAIR/driving.wav          driving audio, 16 kHz mono

The ground truth is not exported.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import cv2
import numpy as np

from cmet_eval.protocol.pairs import PairList, pair_file_name
from cmet_eval.runs.generate import WRITER
from cmet_leaderboards.escaping import csv_cell
from cmet_pipelines.shards import ShardSet
from talking_face.clip import Pair
from talking_face.files import replacing, write_text
from talking_face.media.reading import AUDIO_RATE, FPS
from talking_face.media.writing import Encoding, write_audio, write_video
from talking_face.names import inside
from talking_face.progress import Progress

COLUMNS = (
    *("pair_id", "output", "reference_images", "source_video", "driving_audio", "speaker", "reference_emotion"),
    *("target_emotion", "intensity", "n_frames", "fps", "height", "width", "seed"),
)
_SAMPLES = round(AUDIO_RATE / FPS)  # audio samples per frame


def export_pairs(pair_list: PairList, shards: ShardSet, folder: Path, *, quiet: bool = False) -> Path:
    """Writes every pair's inputs below `folder`; existing files are kept. Returns the path of pairs.csv.

    The column `output` is the file name that `cmet-eval score` expects. pairs.csv is written last: if
    pairs.csv exists, the export is complete.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=COLUMNS, lineterminator="\n")
    writer.writeheader()
    with Progress(len(pair_list.pairs), unit="pairs", label="export", quiet=quiet) as progress:
        for pair in pair_list.pairs:
            writer.writerow({name: csv_cell(value) for name, value in _export(pair, shards, folder).items()})
            progress.advance()
    write_text(folder / "pairs.csv", buffer.getvalue())
    return folder / "pairs.csv"


def _export(pair: Pair, shards: ShardSet, folder: Path) -> dict[str, str | int]:
    """Writes the inputs of one pair; returns its row of pairs.csv."""
    name = pair_file_name(pair.pair_id)
    target = inside(folder, name)
    target.mkdir(parents=True, exist_ok=True)
    references = shards.frames(pair.reference_clip, list(pair.reference_frames))
    images = [target / f"reference_{index}.png" for index in range(len(references))]
    for path, frame in zip(images, references, strict=True):
        _write_picture(path, frame)
    if not (source := target / "source.mp4").exists():
        sound = shards.audio(pair.source_clip)
        write_video(source, shards.frames(pair.source_clip), audio=sound, encoding=Encoding(**WRITER))
    audio = shards.audio(pair.driving_clip)
    if not (driving := target / "driving.wav").exists():
        write_audio(driving, audio, AUDIO_RATE, codec="pcm_s16le")
    return {
        "pair_id": pair.pair_id,
        "output": f"{name}.mp4",
        "reference_images": " ".join(f"{name}/{path.name}" for path in images),
        "source_video": f"{name}/source.mp4",
        "driving_audio": f"{name}/driving.wav",
        "speaker": pair.speaker,
        "reference_emotion": pair.reference_emotion,
        "target_emotion": pair.target_emotion,
        "intensity": "" if pair.intensity is None else pair.intensity,
        "n_frames": round(len(audio) / _SAMPLES),
        "fps": int(FPS),
        "height": references.shape[1],
        "width": references.shape[2],
        "seed": pair.seed,
    }


def _write_picture(path: Path, frame: np.ndarray) -> None:
    """Writes an (H, W, 3) uint8 RGB frame as PNG if the file is absent."""
    if path.exists():
        return
    with replacing(path) as temporary:
        if not cv2.imwrite(str(temporary), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)):
            raise OSError(f"cannot write {path}")
