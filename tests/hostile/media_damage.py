"""Damage at random for `tests.hostile.media`: a cut, flipped, zeroed, moved or lost part of a file."""

from __future__ import annotations

import struct

import numpy as np

from tests.hostile.media_clips import boxes, joined
from tests.hostile.media_places import (
    Made,
    Place,
    Rng,
    anything,
    complete_or_refused,
)


def cut(place: Place) -> Made:
    kind, data = place.clip()
    return Made(place.put(f"cut.{kind}", data[: int(place.rng.integers(1, len(data)))]), complete_or_refused(kind))


def flipped_header(place: Place) -> Made:
    kind, data = place.clip()
    return Made(place.put(f"header.{kind}", _flip(data, place.rng, 0, min(4096, len(data)))), anything)


def flipped_moov(place: Place) -> Made:
    kind, data = place.clip(("mp4", "mov"))
    start = data.index(b"moov")
    return Made(place.put(f"moov.{kind}", _flip(data, place.rng, start, len(data))), anything)


def flipped_data(place: Place) -> Made:
    kind, data = place.clip(("mp4", "mov", "webm", "mkv", "avi"))
    start, end = (data.index(b"mdat") + 4, data.index(b"moov") - 4) if kind in ("mp4", "mov") else (4096, len(data))
    judge = complete_or_refused(kind) if kind in ("mp4", "mov") else anything
    return Made(place.put(f"data.{kind}", _flip(data, place.rng, start, end)), judge)


def zeroed(place: Place) -> Made:
    kind, data = place.clip()
    size = int(len(data) * place.rng.uniform(0.01, 0.5))
    start = int(place.rng.integers(0, len(data) - size))
    judge = complete_or_refused(kind) if kind in ("mp4", "mov") else anything
    if kind in ("mp4", "mov") and start + size > data.index(b"moov") - 4:
        judge = anything
    return Made(place.put(f"zeroed.{kind}", data[:start] + bytes(size) + data[start + size :]), judge)


def shuffled(place: Place) -> Made:
    kind, data = place.clip()
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    at = int(place.rng.integers(1, len(blocks) - 8))
    part = blocks[at : at + 8]
    place.rng.shuffle(part)
    return Made(place.put(f"shuffled.{kind}", b"".join([*blocks[:at], *part, *blocks[at + 8 :]])), anything)


def lost_middle(place: Place) -> Made:
    kind, data = place.clip()
    size = int(len(data) * place.rng.uniform(0.05, 0.5))
    start = int(place.rng.integers(0, len(data) - size))
    return Made(place.put(f"lost.{kind}", data[:start] + data[start + size :]), anything)


def swapped_boxes(place: Place) -> Made:
    kind, data = place.clip(("mp4", "mov"))
    tree = list(boxes(data))
    place.rng.shuffle(tree)
    return Made(place.put(f"swapped.{kind}", joined(tuple(tree))), anything)


def wrong_box_size(place: Place) -> Made:
    kind, data = place.clip(("mp4", "mov"))
    names = (b"mdat", b"moov", b"trak", b"mdia", b"stbl", b"stsz", b"stsd", b"stts", b"stsc", b"stco", b"elst", b"hdlr")
    found = [data.index(name) - 4 for name in names if name in data]
    at = found[int(place.rng.integers(len(found)))]
    size = int(place.pick([0, 1, 7, 8, 0x7FFFFFFF, 0xFFFFFFFF, int(place.rng.integers(0, 1 << 20))]))  # type: ignore[call-overload]
    return Made(place.put(f"size.{kind}", data[:at] + struct.pack(">I", size) + data[at + 4 :]), anything)


def wild_table(place: Place) -> Made:
    """The number of entries, or one value, of a table of the index is changed."""
    kind, data = place.clip(("mp4", "mov"))
    names = (b"stsz", b"stts", b"stsc", b"stco", b"elst", b"ctts", b"stss", b"mvhd", b"mdhd", b"tkhd", b"stsd")
    found = [data.index(name) + 8 for name in names if name in data]
    at = found[int(place.rng.integers(len(found)))] + 4 * int(place.rng.integers(0, 4))
    value = int(place.pick([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, int(place.rng.integers(0, 1 << 32))]))  # type: ignore[call-overload]
    return Made(place.put(f"table.{kind}", data[:at] + struct.pack(">I", value) + data[at + 4 :]), anything)


def junk_after(place: Place) -> Made:
    kind, data = place.clip(("mp4", "mov", "mkv", "avi", "flv"))
    junk = bytes(100_000) if place.rng.random() < 0.5 else place.rng.bytes(20_000)
    return Made(place.put(f"junk.{kind}", data + junk), complete_or_refused(kind))


def _flip(data: bytes, rng: Rng, start: int, end: int) -> bytes:
    out = np.frombuffer(data, np.uint8).copy()
    at = rng.integers(start, max(start + 1, end), int(10 ** rng.uniform(0, 2)))
    out[at] ^= (1 << rng.integers(0, 8, len(at))).astype(np.uint8)
    return out.tobytes()
