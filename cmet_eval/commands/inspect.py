"""Show the content of a shard set: counts, the ledger by reason, digest and signature, a contact sheet of faces.

Examples:
    cmet-eval inspect work/demo/shards
    cmet-eval inspect work/demo/shards --verify --clips 0
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import cv2
import numpy as np
import typer

from cmet_eval.checks import check_shards
from talking_face.faces.points68 import to_68
from talking_face.reasons import Reason, UserError

if TYPE_CHECKING:
    from cmet_pipelines.shards import ShardSet

SHEET = "contact_sheet.png"
STATUSES = ("kept", "dropped", "excluded", "skipped")
_THUMB = 192  # px; at this size a landmark dot of 1 px is visible
_LABEL = 18  # px; height of the text below each row


def inspect(
    out: Annotated[Path, typer.Argument(metavar="SHARDS", help="the folder that preprocess wrote")],
    clips: Annotated[
        int, typer.Option(min=0, metavar="N", help="clips on the contact sheet, spread over the set")
    ] = 24,
    frames: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="frames of each, spread over the clip")] = 4,
    verify: Annotated[
        bool, typer.Option("--verify", help="check every byte of the stored files; about 1 s per GB")
    ] = False,
) -> None:
    """Prints the counts of OUT and writes OUT/contact_sheet.png."""
    from cmet_pipelines.shards import ShardSet

    check_shards(out, "SHARDS")
    shards = ShardSet(out)
    if verify:
        _verify(out, len(shards.card["shards"]))
    print(f"dataset    {shards.card['dataset']}")
    print(f"origin     {shards.origin}")
    print(f"signature  {shards.signature}")
    print(f"digest     {shards.digest}")
    _print_clips(shards)
    _print_ledger(shards)
    _print_missing(shards)
    if clips and len(shards):
        sheet = contact_sheet(shards, clips, frames)
        path = shards.folder / SHEET
        if not cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
            raise UserError(f"cannot write {path}")
        print(f"faces      {path}")


def _verify(out: Path, n_shards: int) -> None:
    """Prints one line for each damaged file. Ends the command with exit code 1 if there is one."""
    from cmet_pipelines.shards import damaged_files

    damage = damaged_files(out)
    for line in damage:
        print(f"cmet-eval: {line}", file=sys.stderr)
    print(f"verified   {n_shards + 3 - len(damage)} of {n_shards + 3} files are as they were written")
    if damage:
        raise typer.Exit(1)


def _print_clips(shards: ShardSet) -> None:
    """Prints the numbers and the labels of the kept clips."""
    table = shards.clips
    seconds = float((table["n_frames"] / table["fps"]).sum())
    print(f"clips      {len(table)}, {int(table['n_frames'].sum())} frames, {seconds:.1f} s")
    if not len(table):
        return
    valid = table["n_valid"].sum() / table["n_frames"].sum()
    lengths = table["n_frames"]
    print(f"length     {lengths.min()} to {lengths.max()} frames, median {lengths.median():g}")
    print(f"valid face {valid:.2%} of frames; lowest clip {table['valid_fraction'].min():.2%}")
    print(f"jitter     median {table['jitter'].median():.3f} px, highest {table['jitter'].max():.3f} px (crop pixels)")
    bytes_stored = sum(file["bytes"] for file in shards.card["shards"].values())
    each = bytes_stored / len(table) / 1e6
    print(f"storage    {bytes_stored / 1e6:.1f} MB in {len(shards.card['shards'])} shards, {each:.2f} MB a clip")
    for name in ("split", "emotion", "speaker"):
        counts = table[name].fillna("unknown").value_counts().sort_index()
        shown = [f"{key} {count}" for key, count in counts.items()]
        more = f", and {len(shown) - 24} more" if len(shown) > 24 else ""
        print(f"{name:<10} {', '.join(shown[:24])}{more}")
    warnings = table["warnings"].map(len)
    if (warnings > 0).any():
        print(f"warnings   {int((warnings > 0).sum())} clips")
        for _, row in table[warnings > 0].head(5).iterrows():
            print(f"  {row['clip_id']}: {', '.join(row['warnings'])}")


def _print_ledger(shards: ShardSet) -> None:
    """Prints how many files were kept, dropped, excluded and skipped, with the reasons."""
    ledger = shards.ledger
    counts = ledger["status"].value_counts()
    print("ledger     " + ", ".join(f"{counts.get(status, 0)} {status}" for status in STATUSES))
    lost = ledger[ledger["status"] != "kept"]
    groups = lost.groupby(["status", "reason"], sort=True)
    # Print files that are not clips last, because most of these files are readmes and other additional files.
    for (status, reason), rows in sorted(groups, key=lambda group: group[0][1] == Reason.NOT_A_CLIP):
        stages = ", ".join(sorted(set(rows["stage"]) - {""}))
        print(f"  {status}, {reason} ({stages}): {len(rows)}")
        for _, row in rows.head(3).iterrows():
            print(f"    {row['source']}: {row['detail']}")
        if len(rows) > 3:
            print(f"    and {len(rows) - 3} more; all are in ledger.parquet")


def _print_missing(shards: ShardSet) -> None:
    """Prints how many clips of the dataset's published release were not found."""
    from cmet_pipelines import contents

    dataset = shards.card["dataset"]
    found = shards.ledger[shards.ledger["status"].isin(["kept", "dropped", "excluded"])]
    lacking = contents.missing(dataset, found.to_dict("records"))
    if lacking is None:
        return
    if not len(lacking):
        print(f"release    nothing of {dataset} is missing")
        return
    short = int((lacking["clips"] - lacking["found"]).sum())
    whole = contents.expected(dataset)
    print(f"release    {short} of the {int(whole['clips'].sum())} clips of {dataset} are missing")  # type: ignore[index]
    labels = [name for name in contents.LABELS if name in lacking]
    totals = lacking.groupby(labels[0])[["clips", "found"]].sum() if labels else lacking
    absent = [str(key) for key, row in totals.iterrows() if row["found"] == 0]
    if absent:
        more = f", and {len(absent) - 24} more" if len(absent) > 24 else ""
        print(f"  whole {labels[0]}: {', '.join(absent[:24])}{more}")
    part = lacking[~lacking[labels[0]].isin(absent)]
    for _, row in part.head(12).iterrows():
        print(f"  {' '.join(str(row[name]) for name in labels)}: {row['found']} of {row['clips']}")
    if len(part) > 12:
        print(f"  and {len(part) - 12} more groups")


def contact_sheet(shards: ShardSet, n_clips: int = 24, n_frames: int = 4) -> np.ndarray:
    """(H, W, 3) uint8 RGB: frames of clips that are spread over the set.

    A frame with a valid face shows its 68 face points. A frame without a valid face has a red border.
    """
    ids = list(shards.clips["clip_id"])
    picked = [ids[i] for i in np.unique(np.linspace(0, len(ids) - 1, min(n_clips, len(ids))).round().astype(int))]
    strips = [_strip(shards, clip_id, n_frames) for clip_id in picked]
    columns = max(1, min(len(strips), round(math.sqrt(len(strips) * (_THUMB + _LABEL) / (_THUMB * n_frames)))))
    blank = np.full_like(strips[0], 255)
    strips += [blank] * (-len(strips) % columns)
    rows = [np.hstack(strips[start : start + columns]) for start in range(0, len(strips), columns)]
    return np.vstack(rows)


def _strip(shards: ShardSet, clip_id: str, n_frames: int) -> np.ndarray:
    """One clip: `n_frames` thumbnails side by side, with the clip's name below."""
    landmarks, valid = shards.landmarks(clip_id), shards.valid(clip_id)
    indices = np.linspace(0, len(valid) - 1, n_frames).round().astype(int)
    images = shards.frames(clip_id, indices.tolist())
    thumbs = []
    for index, image in zip(indices, images, strict=True):
        thumb = cv2.resize(image, (_THUMB, _THUMB), interpolation=cv2.INTER_AREA)
        if valid[index]:
            for x, y in to_68(landmarks[index]) * (_THUMB / np.array(image.shape[1::-1])):
                cv2.circle(thumb, (round(float(x)), round(float(y))), 1, (60, 255, 60), -1, cv2.LINE_AA)
        else:
            cv2.rectangle(thumb, (0, 0), (_THUMB - 1, _THUMB - 1), (255, 0, 0), 3)
        thumbs.append(thumb)
    label = np.full((_LABEL, _THUMB * n_frames, 3), 255, np.uint8)
    text = f"{clip_id}  {len(valid)} frames, {valid.mean():.0%} valid"
    cv2.putText(label, text, (3, _LABEL - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([np.hstack(thumbs), label])
