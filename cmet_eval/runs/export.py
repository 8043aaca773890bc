"""Export of a pair list as plain files, for methods that run in their own environment, on their own machine.

    DIR/pairs.csv                 one row a pair: the files below, the label, frames wanted, the name to write
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

from cmet_eval.protocol.pairs import PairList, pair_file_name
from cmet_eval.runs.generate import WRITER
from cmet_pipelines.shards import ShardSet
from talking_face.media.reading import AUDIO_RATE
from talking_face.media.writing import Encoding, write_audio, write_video
from talking_face.progress import Progress

COLUMNS = (
    *("pair_id", "output", "reference_images", "source_video", "driving_audio", "speaker", "reference_emotion"),
    *("target_emotion", "intensity", "n_frames", "fps", "height", "width", "seed"),
)


def export_pairs(pair_list: PairList, shards: ShardSet, folder: Path, *, quiet: bool = False) -> Path:
    """Write every pair's inputs below `folder`; files that are there are kept. Returns the path of pairs.csv.

    `output` is the file name that `cmet-eval score` expects. pairs.csv is written last, so where it is, all is.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=COLUMNS, lineterminator="\n")
    writer.writeheader()
    with Progress(len(pair_list.pairs), unit="pairs", label="export", quiet=quiet) as progress:
        for pair in pair_list.pairs:
            name = pair_file_name(pair.pair_id)
            target = folder / name
            target.mkdir(parents=True, exist_ok=True)
            references = shards.frames(pair.reference_clip, list(pair.reference_frames))
            images = [target / f"reference_{index}.png" for index in range(len(references))]
            for path, frame in zip(images, references, strict=True):
                if not path.exists():
                    part = path.with_name(f".{path.name}.part.png")
                    if not cv2.imwrite(str(part), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)):
                        raise OSError(f"cannot write {path}")
                    part.replace(path)
            if not (source := target / "source.mp4").exists():
                sound = shards.audio(pair.source_clip)
                write_video(source, shards.frames(pair.source_clip), audio=sound, encoding=Encoding(**WRITER))
            audio = shards.audio(pair.driving_clip)
            if not (driving := target / "driving.wav").exists():
                write_audio(driving, audio, AUDIO_RATE, codec="pcm_s16le")
            writer.writerow(
                {
                    "pair_id": pair.pair_id,
                    "output": f"{name}.mp4",
                    "reference_images": " ".join(f"{name}/{path.name}" for path in images),
                    "source_video": f"{name}/source.mp4",
                    "driving_audio": f"{name}/driving.wav",
                    "speaker": pair.speaker,
                    "reference_emotion": pair.reference_emotion,
                    "target_emotion": pair.target_emotion,
                    "intensity": "" if pair.intensity is None else pair.intensity,
                    "n_frames": round(len(audio) / 640),
                    "fps": 25,
                    "height": references.shape[1],
                    "width": references.shape[2],
                    "seed": pair.seed,
                }
            )
            progress.advance()
    part = folder / "pairs.csv.part"
    part.write_text(buffer.getvalue(), encoding="utf-8", newline="")
    part.replace(folder / "pairs.csv")
    return folder / "pairs.csv"
