"""Keeps arrays that are computed once per clip in files next to the shards: face codes and vectors of utterances.

The files are SHARDS/reference/kept/NAME/DIGEST.safetensors. NAME contains the hash of the network that computed the
arrays. DIGEST depends on the shard set and on the clips of the file. A file holds the arrays of at most 64 clips, so
that a killed command loses the work of at most 64 clips.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cmet_pipelines.shards import ShardSet
from cmet_reference.clips import ClipArrays
from talking_face.files import check_writable
from talking_face.pretrained.model_files import CHECKPOINTS_FOLDER
from talking_face.pretrained.tensor_files import read_sealed_tensors, write_sealed_tensors
from talking_face.progress import Progress
from talking_face.sealed import Damaged, discard
from talking_face.signature import digest

_CLIPS_A_FILE = 64
_REMEDY = "it is computed again"


def kept_arrays(
    clips: Sequence[ClipArrays], name: str, compute: Callable[[ClipArrays], np.ndarray], quiet: bool = True
) -> list[np.ndarray]:
    """The array of each clip, float32, in the order of `clips`. Arrays of an earlier run are read, not computed again.

    Args:
        clips: clips of one or more shard sets.
        name: name of the folder; it must identify the network that computes the arrays.
        compute: computes the float32 array of a clip.
        quiet: no progress line.

    Raises:
        UserError or OSError: the folder of a shard set cannot be written. This is checked before any array is computed.
    """
    parts = [part for folder in dict.fromkeys(c.folder for c in clips) for part in _parts(clips, folder)]
    files = [_file(part, name) for part in parts]
    for folder in {file.parent for file in files if not file.is_file()}:
        check_writable(folder)
    found: dict[tuple[Path, str], np.ndarray] = {}
    with Progress(len(clips), "clips", name, quiet) as progress:
        for part, file in zip(parts, files, strict=True):
            arrays = _read(file, part)
            if arrays is None:
                arrays = [np.asarray(compute(clip), np.float32) for clip in part]
                _write(file, part, arrays)
            for clip, array in zip(part, arrays, strict=True):
                found[clip.folder, clip.clip_id] = array
                progress.advance()
    return [found[clip.folder, clip.clip_id] for clip in clips]


def _parts(clips: Sequence[ClipArrays], folder: Path) -> list[list[ClipArrays]]:
    """The clips of one shard set, in lists of at most 64 clips."""
    own = [clip for clip in clips if clip.folder == folder]
    return [own[i : i + _CLIPS_A_FILE] for i in range(0, len(own), _CLIPS_A_FILE)]


def _file(part: Sequence[ClipArrays], name: str) -> Path:
    folder = part[0].folder
    what = digest([ShardSet(folder).digest, [[clip.clip_id, len(clip)] for clip in part]], 24)
    return folder / CHECKPOINTS_FOLDER / "kept" / name / f"{what}.safetensors"


def _read(file: Path, part: Sequence[ClipArrays]) -> list[np.ndarray] | None:
    """The arrays in the file; None if it is absent or damaged. A damaged file is removed with a line on stderr."""
    try:
        tensors = read_sealed_tensors(file, _REMEDY).tensors()
        if sorted(tensors) != sorted(clip.clip_id for clip in part):
            raise Damaged(file, "it has other clips", _REMEDY)
    except FileNotFoundError:
        return None
    except Damaged as error:
        discard(error)
        return None
    return [tensors[clip.clip_id].numpy() for clip in part]


def _write(file: Path, part: Sequence[ClipArrays], arrays: Sequence[np.ndarray]) -> None:
    import torch

    tensors = {
        clip.clip_id: torch.from_numpy(np.ascontiguousarray(array)) for clip, array in zip(part, arrays, strict=True)
    }
    write_sealed_tensors(file, tensors, {"clips": len(part)})
