"""The folders in which a command searches for model files: pretrained weights, trained evaluators and checkpoints.

A command creates one `ModelFiles` object and passes the object to metrics, methods and worker tasks. Therefore the
signature of a metric depends only on the metric's arguments. Only this module reads the environment variables that name
folders of model files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

WEIGHTS, CACHE, CHECKPOINTS = "CMET_EVAL_WEIGHTS", "CMET_EVAL_CACHE", "CMET_EVAL_CHECKPOINTS"
BASELINES = "CMET_EVAL_BASELINES"
EVALUATORS_FOLDER, CHECKPOINTS_FOLDER = "evaluators", "reference"  # subfolders of a shard set


@dataclass(frozen=True)
class ModelFiles:
    """The folders in which a command searches for model files. The object is hashable and picklable.

    Attributes:
        weights: folders in which registered pretrained files and evaluators are searched for first.
        cache: folder for downloaded files and pinned hashes; None means the platform's cache folder.
        evaluators: folders in which evaluators that are not in `weights` are searched for.
        checkpoints: folders in which checkpoints of the reference models are searched for.
        hashes: (file name, SHA-256 in hex) of each evaluator at the start of the command; the hash of an absent file is
            "". `trained_evaluators.with_hashes` sets these hashes, and a worker refuses a file with a different hash.
            If `hashes` is empty, no hash is checked.
        baselines: folder in which published methods are set up; None means a folder in the cache.
    """

    weights: tuple[Path, ...] = ()
    cache: Path | None = None
    evaluators: tuple[Path, ...] = ()
    checkpoints: tuple[Path, ...] = ()
    hashes: tuple[tuple[str, str], ...] = ()
    baselines: Path | None = None

    @classmethod
    def from_environment(cls, data: Path | None = None) -> ModelFiles:
        """The folders in the four environment variables CMET_EVAL_*, then the folders of a shard set.

        Args:
            data: folder of a shard set. The subfolders `evaluators` and `reference` of this folder are searched after
                the folders in the variables.
        """
        cache, baselines = os.environ.get(CACHE), os.environ.get(BASELINES)
        return cls(
            weights=_folders(WEIGHTS),
            cache=Path(cache) if cache else None,
            evaluators=() if data is None else (Path(data) / EVALUATORS_FOLDER,),
            checkpoints=(*_folders(CHECKPOINTS), *(() if data is None else (Path(data) / CHECKPOINTS_FOLDER,))),
            baselines=Path(baselines) if baselines else None,
        )

    def folder(self, given: str) -> Path:
        """The folder `given` if it exists, else a folder with this path in one of the folders `weights`."""
        places = (Path(given).expanduser(), *(folder / given for folder in self.weights))
        return next((place for place in places if place.is_dir()), Path(given))


def folder_name(setting: str) -> str:
    """A setting `KIND:FOLDER` with only the folder's last part, if the folder is not below the current folder.

    Checkpoints store this form, because they are published, and a path can name a user. `ModelFiles.folder` finds the
    folder again, if CMET_EVAL_WEIGHTS names the folder that contains it.

    Example:
        >>> folder_name("stored:/home/me/vectors"), folder_name("stored:data/vectors"), folder_name("aee")
        ('stored:vectors', 'stored:data/vectors', 'aee')
    """
    kind, colon, where = setting.rpartition(":")
    path = Path(where)
    outside = path.is_absolute() or where.startswith("~") or ".." in path.parts
    return f"{kind}{colon}{path.name}" if outside else setting


def _folders(variable: str) -> tuple[Path, ...]:
    """The folders in an environment variable. The separator is the same as in the variable PATH."""
    return tuple(Path(folder) for folder in os.environ.get(variable, "").split(os.pathsep) if folder)
