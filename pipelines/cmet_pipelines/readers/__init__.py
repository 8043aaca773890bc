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
from cmet_pipelines.readers.base import LINK_LEFT, Discovery, Reader, ReaderOptions, Skipped, check_rules, unmentioned
from talking_face.names import counted, did_you_mean, printable
from talking_face.reasons import Reason, UserError

__all__ = ["READERS", "Discovery", "Reader", "ReaderOptions", "Skipped", "discover", "get_reader", "name_below"]

# The reasons for which an archive is skipped, if the archive could not be read or could be read only in part.
_UNREAD = frozenset(
    {
        *(Reason.COMPRESSED, Reason.TRUNCATED, Reason.NOT_MEDIA),
        *(Reason.EMPTY_FILE, Reason.LFS_POINTER),
    }
)
# What a note says about skipped rows of these reasons, because they are clips or labels that are lost.
_LOST = {
    Reason.UNREADABLE: "cannot be read, so clips are missing; give read permission and run again",
    Reason.BAD_LABEL: "left out for a label or a name that cannot be read",
    Reason.MISSING_FILE: "named in a label file or list, or linked, but absent",
}
_NAMED = 5  # names in a note

_SHARED = frozenset({"archives", "base", "label_paths", "tar_headers"})  # modules of this folder that are not readers


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
        UserError: if the dataset is unknown, the root is not a folder that can be read, no clip is found, no row of a
            label table matches a file, or the reader breaks a rule.
        TypeError: if the options belong to another reader.
    """
    reader = get_reader(dataset)
    options = reader.options() if options is None else options
    if not isinstance(options, reader.options):
        raise TypeError(f"{dataset} takes {reader.options.__name__}, got {type(options).__name__}")
    root = _folder(dataset, Path(root))
    found = reader.discover(root, options)
    check_rules(reader, found)
    if defects:
        _leave_out_defects(dataset, found)
    name_below(root, found)
    if not found.clips:
        raise _no_clips(dataset, root, found)
    _note_lost(found)
    _note_unread_archives(found)
    _note_unmentioned(dataset, root, found)
    found.notes = [printable(note) for note in found.notes]
    return found


def _folder(dataset: str, root: Path) -> Path:
    """The resolved root. Raises UserError if it is not a folder."""
    try:
        whole = root.resolve(strict=True)
        is_folder = whole.is_dir()
    except FileNotFoundError:
        raise UserError(f"{root} does not exist; give the folder that holds the {dataset} files") from None
    except (OSError, RuntimeError, ValueError) as error:  # pathlib raises RuntimeError for a loop of links
        why = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{root} cannot be read: {why}; give the folder that holds the {dataset} files") from None
    if not is_folder:
        raise UserError(f"{root} is a file; give the folder that holds the {dataset} files")
    return whole


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


def name_below(root: Path, found: Discovery) -> None:
    """Makes the paths of skipped files relative to the root, so that the ledger does not depend on the root.

    The texts become printable. `root` must be resolved.
    """
    folder = f"{printable(str(root))}/"

    def below(skip: Skipped) -> Skipped:
        path, detail = printable(skip.path), printable(skip.detail)
        return dataclasses.replace(skip, path=path.removeprefix(folder), detail=detail.replace(folder, ""))

    found.skipped = [below(skip) for skip in found.skipped]


def _no_clips(dataset: str, root: Path, found: Discovery) -> UserError:
    reasons = Counter(skip.detail for skip in found.skipped)
    most = "; ".join(f"{count} times: {detail}" for detail, count in reasons.most_common(3))
    looked = f"{len(found.skipped)} files looked at"
    links = sum(skip.detail == LINK_LEFT for skip in found.skipped)
    cure = f"; {counted(links, 'link')} left out: give --follow-links to read them" if links else ""
    return UserError(f"no {dataset} clip under {root} ({looked}{'; ' + most if most else ''}){cure}")


def _note_lost(found: Discovery) -> None:
    """Adds a note for each reason of `_LOST`, with the number of rows and the first names."""
    for reason, what in _LOST.items():
        rows = [skip for skip in found.skipped if skip.reason is reason]
        if rows:
            names = ", ".join(skip.path for skip in rows[:_NAMED]) + (", ..." if rows[_NAMED:] else "")
            found.notes.append(f"{len(rows)} {what} ({reason}): {names}; first: {rows[0].detail}")


def _note_unmentioned(dataset: str, root: Path, found: Discovery) -> None:
    if names := unmentioned(root, found):
        found.notes.append(
            f"{len(names)} files are neither part of a clip nor skipped with a reason, such as {names[0]}; this is a "
            f"mistake in the reader of {dataset}"
        )


def _note_unread_archives(found: Discovery) -> None:
    unread = [skip.path for skip in found.skipped if is_archive(skip.path) and skip.reason in _UNREAD]
    if unread:
        named = ", ".join(unread[:_NAMED]) + (f" and {len(unread) - _NAMED} more" if unread[_NAMED:] else "")
        found.notes.append(f"{len(unread)} archives could not be read, or not whole (the ledger says why): {named}")
