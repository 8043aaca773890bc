"""Keeps MediaPipe's points of a clip in a file, so that a later scoring of the same frames does not compute them again.

The landmarker takes two thirds of the time of most metrics. A file takes 6 KB per frame. If it is deleted or damaged,
the points are computed again, with the same values.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from cmet_metrics.base import Sample
from cmet_metrics.landmarks import give_mesh, known_mesh
from talking_face.pretrained.face_landmarker import landmarker_tag
from talking_face.sealed import Damaged, discard, read_sealed_table, write_sealed_table
from talking_face.signature import digest

_REMEDY = "it is computed again"


def file_of(folder: Path, *content: str) -> Path:
    """The file of a clip's points in `folder`.

    Args:
        content: texts that determine the frames, for example the SHA-256 of a video.
    """
    key = digest([*content, landmarker_tag()], 32)
    return folder / key[:2] / f"{key}.parquet"


def give_kept(sample: Sample, path: Path) -> None:
    """Gives the kept points to a sample. Without a file, the sample stays as it is. A damaged file is removed."""
    try:
        table = read_sealed_table(path, _REMEDY)
        points, blendshapes = (
            np.frombuffer(table[name][0].as_py(), "<f4").reshape(len(sample.frames), *shape).copy()
            for name, shape in (("points", (478, 3)), ("blendshapes", (52,)))
        )
    except FileNotFoundError:
        return
    except Damaged as error:
        discard(error)
        return
    except (KeyError, ValueError, IndexError, TypeError):
        discard(Damaged(path, "it has other content", _REMEDY))
        return
    give_mesh(sample, (points, blendshapes))


def keep(sample: Sample, path: Path) -> None:
    """Writes the points of a sample, if a metric computed them and the file is absent."""
    mesh = known_mesh(sample)
    if mesh is None or path.is_file():
        return
    points, blendshapes = (np.ascontiguousarray(array, "<f4").tobytes() for array in mesh)
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"points": pa.array([points]), "blendshapes": pa.array([blendshapes])})
    write_sealed_table(table, path, compression="none")
