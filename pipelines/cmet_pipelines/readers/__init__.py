"""Finds and labels the clips of a dataset with the dataset's reader.

A reader uses file names and label files, and does not decode media. Each reader is a module of this folder that defines
`READER`. docs/how_to/add_a_dataset.md shows a complete reader.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from cmet_pipelines import defects as known_defects
from cmet_pipelines.readers.archives import is_archive
from cmet_pipelines.readers.base import Discovery, Reader, ReaderOptions, Skipped, check_rules, unmentioned
from talking_face.names import did_you_mean
from talking_face.reasons import Reason, UserError

__all__ = ["READERS", "Discovery", "Reader", "ReaderOptions", "Skipped", "discover", "get_reader"]

# The reasons for which an archive is skipped, if the archive could not be read or could be read only in part.
_UNREAD = frozenset(
    {
        *(Reason.COMPRESSED, Reason.TRUNCATED, Reason.NOT_MEDIA, Reason.UNREADABLE),
        *(Reason.EMPTY_FILE, Reason.LFS_POINTER),
    }
)


_SHARED = frozenset({"archives", "base"})  # modules of this folder that are not readers


def _modules() -> Iterator[tuple[str, Reader | None]]:
    """(name, `READER`) of every reader module of this folder; None in place of `READER` if it is not defined."""
    for module in pkgutil.iter_modules(__path__):
        if module.name not in _SHARED:
            reader = getattr(importlib.import_module(f"{__name__}.{module.name}"), "READER", None)
            yield module.name, reader if isinstance(reader, Reader) else None


READERS: Mapping[str, Reader] = {reader.name: reader for _, reader in _modules() if reader}


def get_reader(dataset: str) -> Reader:
    """The dataset's reader. Raises UserError for an unknown name."""
    if dataset not in READERS:
        near = did_you_mean(dataset.lower(), READERS)
        without = "".join(f"; readers/{name}.py does not define READER" for name, reader in _modules() if not reader)
        raise UserError(f"unknown dataset {dataset!r}{near}; there are {', '.join(sorted(READERS))}{without}")
    return READERS[dataset]


def discover(dataset: str, root: Path, options: ReaderOptions | None = None, *, defects: bool = True) -> Discovery:
    """Every clip under `root`, sorted by clip_id, and every other file with the reason why the file is not a clip.

    Args:
        dataset: a reader's name.
        root: folder of the dataset.
        options: options of that reader; None for the defaults.
        defects: whether clips in the dataset's table of known defects are left out.

    Raises:
        UserError: if the dataset is unknown, the root is not a folder, no clip is found, or the reader breaks a rule.
        TypeError: if the options belong to another reader.
    """
    reader = get_reader(dataset)
    options = reader.options() if options is None else options
    if not isinstance(options, reader.options):
        raise TypeError(f"{dataset} takes {reader.options.__name__}, got {type(options).__name__}")
    root = Path(root)
    if not root.exists():
        raise UserError(f"{root} does not exist; give the folder that holds the {dataset} files")
    if not root.is_dir():
        raise UserError(f"{root} is a file; give the folder that holds the {dataset} files")
    found = reader.discover(root.resolve(), options)
    check_rules(reader, found)
    if defects:
        _leave_out_defects(dataset, found)
    _name_below(root.resolve(), found)
    if not found.clips:
        raise _no_clips(dataset, root, found)
    _note_unread_archives(found)
    _note_unmentioned(dataset, root.resolve(), found)
    return found


def _leave_out_defects(dataset: str, found: Discovery) -> None:
    """Moves the clips that are in the dataset's table of known defects from `clips` to `skipped`."""
    kept = []
    for clip in found.clips:
        defect = known_defects.find(dataset, clip.clip_id)
        if defect is None:
            kept.append(clip)
        else:
            found.exclude(clip, Reason.KNOWN_DEFECT, f"{defect.reason} ({defect.source})")
    if len(kept) < len(found.clips):
        found.notes.append(f"{len(found.clips) - len(kept)} clips left out as known defects (--no-defects takes them)")
    found.clips = kept
    found.skipped.sort(key=lambda skip: (skip.path, skip.detail))


def _name_below(root: Path, found: Discovery) -> None:
    """Makes the paths of skipped files relative to the root, so that the ledger does not depend on the root."""
    found.skipped = [
        dataclasses.replace(skip, path=skip.path.removeprefix(f"{root}/"), detail=skip.detail.replace(f"{root}/", ""))
        for skip in found.skipped
    ]


def _no_clips(dataset: str, root: Path, found: Discovery) -> UserError:
    reasons = Counter(skip.detail for skip in found.skipped)
    most = "; ".join(f"{count} times: {detail}" for detail, count in reasons.most_common(3))
    looked = f"{len(found.skipped)} files looked at"
    return UserError(f"no {dataset} clip under {root} ({looked}{'; ' + most if most else ''})")


def _note_unmentioned(dataset: str, root: Path, found: Discovery) -> None:
    if names := unmentioned(root, found):
        found.notes.append(
            f"{len(names)} files are neither part of a clip nor skipped with a reason, such as {names[0]}; this is a "
            f"mistake in the reader of {dataset}"
        )


def _note_unread_archives(found: Discovery) -> None:
    unread = [skip.path for skip in found.skipped if is_archive(skip.path) and skip.reason in _UNREAD]
    if unread:
        named = ", ".join(unread[:5]) + (f" and {len(unread) - 5} more" if len(unread) > 5 else "")
        found.notes.append(f"{len(unread)} archives could not be read, or not whole (the ledger says why): {named}")
