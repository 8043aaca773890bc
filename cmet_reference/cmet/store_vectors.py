"""Writes the emotion2vec vector of every clip of a shard set, for the setting `speech = "stored:FOLDER"`.

`python -m cmet_reference.cmet.store_vectors SHARDS MODEL FOLDER` writes FOLDER/CLIP_ID.npy, (1024,) float32. MODEL is
the folder of `iic/emotion2vec_plus_large`. Vectors that exist are kept, so the same command finishes a stopped one.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cmet_pipelines.shards import ShardSet
from cmet_reference.cmet.speech import Emotion2Vec, SpeechEncoder
from talking_face.files import check_writable, write_bytes
from talking_face.progress import Progress
from talking_face.reasons import UserError


def store(shards: ShardSet, encoder: SpeechEncoder, folder: Path, quiet: bool = False) -> int:
    """Writes the vector of each clip that has none yet. Returns the number of vectors that were written."""
    check_writable(folder)
    clips = [str(clip) for clip in shards.clips["clip_id"]]
    todo = [clip for clip in sorted(clips) if not (folder / f"{clip}.npy").is_file()]
    with Progress(len(clips), "clips", "vectors", quiet, already=len(clips) - len(todo)) as progress:
        for clip in todo:
            data = io.BytesIO()
            np.save(data, encoder.encode(shards.audio(clip), clip), allow_pickle=False)
            (path := folder / f"{clip}.npy").parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, data.getvalue())
            progress.advance()
    return len(todo)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the emotion2vec vector of every clip of a shard set."""
    parser = argparse.ArgumentParser(prog="python -m cmet_reference.cmet.store_vectors", description=main.__doc__)
    parser.add_argument("shards", type=Path, help="a shard set")
    parser.add_argument("model", type=Path, help="the folder of emotion2vec_plus_large, with model.pt")
    parser.add_argument("folder", type=Path, help="the folder for the vectors")
    parser.add_argument("--device", default="cpu", help="a torch device")
    args = parser.parse_args(argv)
    try:
        written = store(ShardSet(args.shards), Emotion2Vec(args.model, args.device), args.folder)
    except UserError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(f"{written} vectors written: {args.folder}")


if __name__ == "__main__":
    main()
