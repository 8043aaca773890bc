"""Dataset readers: they find clips and label them from names and label files. No reader opens media."""

from __future__ import annotations

import dataclasses
import difflib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from cmet_pipelines import defects
from cmet_pipelines.readers import clips, crema_d, lrs2, mead, meld
from cmet_pipelines.readers.archives import is_archive
from cmet_pipelines.readers.base import Discovery, ReaderOptions, Skipped
from talking_face.reasons import Reason, UserError

Reader = Callable[[Path, ReaderOptions], Discovery]

READERS: Mapping[str, Reader] = {
    "mead": mead.discover,
    "crema-d": crema_d.discover,
    "lrs2": lrs2.discover,
    "meld": meld.discover,
    "clips": clips.discover,
}

# Which readers an option means something to; it is refused elsewhere, as it would do nothing.
USED_BY: Mapping[str, tuple[str, ...]] = {
    "view": ("mead",),
    "numbering": ("mead",),
    "emotion_label": ("crema-d",),
    "subset": ("lrs2",),
    "labels": ("clips", "meld"),
}

__all__ = ["READERS", "Discovery", "ReaderOptions", "Skipped", "discover"]


def discover(dataset: str, root: Path, options: ReaderOptions | None = None) -> Discovery:
    """Every clip under `root`, sorted by clip_id, and every other file with the reason why it is none.

    Raises UserError on an unknown dataset, on a root that is no readable folder, and where no clip was found.
    """
    reader = READERS.get(dataset)
    if reader is None:
        near = difflib.get_close_matches(dataset.lower(), READERS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(f"no reader for dataset {dataset!r}: {hint}there are {', '.join(sorted(READERS))}")
    root = Path(root)
    if not root.exists():
        raise UserError(f"{root} does not exist; give the folder that holds the {dataset} files")
    if not root.is_dir():
        raise UserError(f"{root} is a file; give the folder that holds the {dataset} files")
    options = options or ReaderOptions()
    for name, datasets in USED_BY.items():
        if dataset not in datasets and getattr(options, name) != getattr(ReaderOptions(), name):
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"{option} means nothing for {dataset} (it is for {', '.join(datasets)}); leave it out")
    found = reader(root.resolve(), options)
    if options.defects:
        _leave_out_defects(dataset, found)
    _tell_below(root.resolve(), found)
    if not found.clips:
        reasons = Counter(skip.detail for skip in found.skipped)
        most = "; ".join(f"{count} times: {detail}" for detail, count in reasons.most_common(3))
        raise UserError(
            f"no {dataset} clip under {root} ({len(found.skipped)} files looked at{'; ' + most if most else ''})"
        )
    unread = [skip.path for skip in found.skipped if is_archive(skip.path) and skip.reason in _UNREAD]
    if unread:
        named = ", ".join(unread[:5]) + (f" and {len(unread) - 5} more" if len(unread) > 5 else "")
        found.notes.append(f"{len(unread)} archives could not be read, or not whole (the ledger says why): {named}")
    return found


_UNREAD = frozenset(
    {
        *(Reason.COMPRESSED, Reason.TRUNCATED, Reason.NOT_MEDIA, Reason.UNREADABLE),
        *(Reason.EMPTY_FILE, Reason.LFS_POINTER),
    }
)


def _tell_below(root: Path, found: Discovery) -> None:
    """Paths below the root in what is said of skipped files: the same wherever the dataset lies."""
    found.skipped = [
        dataclasses.replace(skip, path=skip.path.removeprefix(f"{root}/"), detail=skip.detail.replace(f"{root}/", ""))
        for skip in found.skipped
    ]


def _leave_out_defects(dataset: str, found: Discovery) -> None:
    """Moves the clips that the dataset's defect table names from `clips` to `skipped`."""
    kept = []
    for clip in found.clips:
        defect = defects.find(dataset, clip.clip_id)
        if defect is None:
            kept.append(clip)
        else:
            found.exclude(clip, Reason.KNOWN_DEFECT, f"{defect.reason} ({defect.source})")
    if len(kept) < len(found.clips):
        found.notes.append(f"{len(found.clips) - len(kept)} clips left out as known defects (--no-defects takes them)")
    found.clips = kept
    found.skipped.sort(key=lambda skip: (skip.path, skip.detail))
