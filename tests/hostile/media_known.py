"""Files for `tests.hostile.media` of which the right outcome is known: unusual, but valid or refused with a reason."""

from __future__ import annotations

import os
import socket
import struct
import tarfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from tests.hostile import media_clips as clips
from tests.hostile.media_clips import boxes, edited, joined, tone, write
from tests.hostile.media_places import (
    COUNT,
    FORMATS,
    SECONDS,
    Made,
    Place,
    anything,
    complete_or_refused,
    refused,
    right,
)
from tests.hostile.media_reader import Outcome


def edit_list(place: Place) -> Made:
    gop, between = str(place.pick([10, 25, 250])), str(place.pick([0, 2]))
    recipe = replace(place.recipe(str(place.pick(["mp4", "mov"]))), options={"g": gop, "bf": between})
    whole, path = place.path("whole.mp4"), place.path("edited.mp4")
    write(whole, recipe)
    start, length = float(place.rng.uniform(0.1, 0.8)), float(place.rng.uniform(0.4, 0.7))
    clips.copy_part(whole, path, start, length)
    first = int(np.ceil(start * 25 - 1e-6))
    numbers = range(first, int(np.ceil((start + length) * 25 - 1e-6)))
    # The copy ends at a decoding time, so that a few frames at its end are added or lack.
    # FFmpeg moves the first frame after the beginning of the edit to this beginning, by less than a frame.
    return Made(path, right(numbers, starts=start, slack=6))


def cover(place: Place) -> Made:
    suffix = str(place.pick(["mp4", "mkv"]))
    recipe = replace(
        place.recipe(suffix),
        cover=int(place.rng.integers(2)),
        cover_attached=bool(place.rng.random() < 0.5) and suffix == "mp4",
    )
    write(place.path(f"cover.{suffix}"), recipe)
    return Made(place.path(f"cover.{suffix}"), right())


def two_pictures(place: Place) -> Made:
    """A second track with other frames comes after the first, which is the default."""
    one, two = place.path("one.mkv"), place.path("two.mkv")
    write(one, place.recipe("mkv"))
    write(two, replace(place.recipe("mkv"), frames=place.stock.frames(1, 90)[50:], sounds=()))
    return Made(_two_inputs(one, two, place.path("pictures.mkv")), right(note="picture-track-1-of-2"))


def pixel_shape(place: Place) -> Made:
    values = ((16, 15), (4, 3), (64, 45), (2, 1), (8, 9), (10, 11), (1, 2), (59, 54), (1, 1000), (1000, 1), (65535, 2))
    aspect = Fraction(*values[int(place.rng.integers(len(values)))])
    kind = str(place.pick(["mp4", "mov", "mkv", "ts"]))
    recipe = replace(place.recipe(kind if kind != "ts" else "mp4"), suffix=kind, aspect=aspect)
    believed = Fraction(1, 3) <= aspect <= 3
    write(place.path(f"pixels.{kind}"), recipe)
    note = f"pixel-aspect-{aspect.numerator}:{aspect.denominator}" if believed else ""
    return Made(place.path(f"pixels.{kind}"), right(disc=float(aspect) if believed else 1.0, note=note))


def turned(place: Place) -> Made:
    turn, aspect = int(place.pick([90, 180, -90])), Fraction(int(place.pick([1, 2])))  # type: ignore[call-overload]
    recipe = place.recipe(str(place.pick(["mp4", "mov"])))
    frames = np.ascontiguousarray(np.rot90(recipe.frames, -turn // 90, axes=(1, 2)))  # type: ignore[arg-type]
    write(place.path("turned.mp4"), replace(recipe, frames=frames, turn=turn, aspect=aspect))
    sideways = turn != 180
    return Made(place.path("turned.mp4"), right(disc=1 / float(aspect) if sideways else float(aspect)))


def anti_phase(place: Place) -> Made:
    recipe, share = place.recipe(), float(place.rng.uniform(0.6, 1.0))
    mono = recipe.sounds[0]
    write(
        place.path("phase.mp4"), replace(recipe, sounds=(np.stack([mono, (-share * mono).astype(np.int16)], axis=1),))
    )
    return Made(place.path("phase.mp4"), right(note="channels-cancel-out"))


def quiet(place: Place) -> Made:
    recipe, loudness = place.recipe(), float(place.pick([0.0, 10.0, 31.0]))  # type: ignore[arg-type]
    noise = (place.rng.normal(size=len(recipe.sounds[0])) * loudness).astype(np.int16)
    write(place.path("quiet.mp4"), replace(recipe, sounds=(noise,)))
    good = right(starts=None)
    return Made(place.path("quiet.mp4"), lambda out: good(out) or ("" if out.quiet else "not called nearly silent"))


def two_sounds(place: Place) -> Made:
    suffix, default, loud = str(place.pick(["mp4", "mkv"])), int(place.rng.integers(2)), int(place.rng.integers(2))
    recipe = place.recipe(suffix)
    sounds = [recipe.sounds[0] * 0, recipe.sounds[0] * 0]
    sounds[loud] = recipe.sounds[0]
    write(place.path(f"sounds.{suffix}"), replace(recipe, sounds=tuple(sounds), default_sound=default))
    judge = right(starts=0.0 if default == loud else None, note=f"sound-track-{default + 1}-of-2")
    wrong = "" if default == loud else "the track that is not the default was used"
    return Made(place.path(f"sounds.{suffix}"), lambda out: judge(out) or ("" if out.quiet == bool(wrong) else wrong))


def time_gap(place: Place) -> Made:
    suffix, gap = str(place.pick(["mp4", "mkv", "mov"])), float(place.pick([0.5, 3.0, 30.0, 1200.0, 36000.0]))  # type: ignore[arg-type]
    which = str(place.pick(["video", "audio", "both"]))
    # Without B-frames, because the muxer refuses packets whose decoding times go back.
    write(place.path(f"whole.{suffix}"), replace(place.recipe(suffix), options={"bf": "0"}))
    clips.shifted_packets(
        place.path(f"whole.{suffix}"),
        place.path(f"gap.{suffix}"),
        lambda kind, at: at + (gap if at > 0.8 and which in (kind, "both") else 0),
    )

    def judge(out: Outcome) -> str:
        if gap > 60 and which != "audio" and not out.picture:
            return f"a gap of {gap:g} s gave {len(out.numbers)} frames"
        if gap > 60 and which != "video" and not out.sound:
            return f"a gap of {gap:g} s gave {out.samples} samples"
        if gap < 10 and which != "audio" and abs(len(out.numbers) - COUNT - gap * 25) > 3:
            return f"a gap of {gap:g} s gave {out.picture or len(out.numbers)}"
        return ""

    return Made(place.path(f"gap.{suffix}"), judge)


def joined_recordings(place: Place) -> Made:
    kind, data = place.clip(("ts", "mpg"))
    return Made(place.put(f"twice.{kind}", data + data), refused("decode-error", sound=False))


def size_change(place: Place) -> Made:
    kind = str(place.pick(["ts", "mpg"]))
    recipe = place.recipe(kind)
    write(place.path("first"), recipe)
    write(place.path("second"), replace(recipe, frames=recipe.frames[:, :160, :200]))  # type: ignore[index]
    data = place.path("first").read_bytes() + place.path("second").read_bytes()
    return Made(place.put(f"sizes.{kind}", data), refused("decode-error", sound=False))


def sound_change(place: Place) -> Made:
    recipe = place.recipe("ts")
    write(place.path("first"), recipe)
    stereo = np.stack([tone(SECONDS, 48000)] * 2, axis=1)
    other = replace(recipe, sounds=(stereo,), sound_rate=48000) if place.rng.random() < 0.5 else recipe
    other = replace(other, sounds=(stereo,))
    write(place.path("second"), other)
    data = place.path("first").read_bytes() + place.path("second").read_bytes()
    return Made(place.put("rates.ts", data), anything)


def list_file(place: Place) -> Made:
    """A text file that names another clip."""
    other = place.put("other.mp4", place.stock.data("mp4", 0))
    texts = (
        f"ffconcat version 1.0\nfile {other.name}\n",
        f"ffconcat version 1.0\nfile '{other}'\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{other.name}\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
        f'<?xml version="1.0"?><MPD><Period><AdaptationSet><BaseURL>{other}</BaseURL></AdaptationSet></Period></MPD>',
        f"concat:{other}|{other}",
        f"[playlist]\nFile1={other}\n",
    )
    suffix = str(place.pick(["mp4", "mkv", "ffconcat", "m3u8", "sdp", "mpd", "txt"]))
    text = texts[int(place.rng.integers(len(texts)))]
    if place.rng.random() < 0.3:
        with tarfile.open(place.path("list.tar"), "w") as archive:
            archive.add(place.put(f"list.{suffix}", text.encode()), f"list.{suffix}")
        return Made(place.path("list.tar"), refused("not-media"), f"list.{suffix}")
    return Made(place.put(f"list.{suffix}", text.encode()), refused("not-media"))


def outside_reference(place: Place) -> Made:
    """An mp4 whose track refers to the data of another file."""
    kind, data = place.clip(("mp4", "mov"))
    write(place.path("secret.mp4"), replace(place.recipe(), frames=place.stock.frames(0, 240)[200:]))
    changed = joined(edited(boxes(data), b"dref", lambda _: clips.alias(str(place.path("secret.mp4")))))

    def judge(out: Outcome) -> str:
        return "the frames of another file were read" if any(n >= 200 for n in out.numbers) else ""

    return Made(place.put(f"reference.{kind}", changed), judge)


def no_media(place: Place) -> Made:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
    cases = {
        "empty-file": b"",
        "lfs-pointer": pointer,
        "not-media": (b"<!DOCTYPE html><html>Quota exceeded</html>", b"hello\n" * 100, bytes(5000))[
            int(place.rng.integers(3))
        ],
    }
    reason = str(place.pick(list(cases)))
    return Made(place.put(f"{reason}.mp4", cases[reason]), refused(reason))


def not_regular(place: Place) -> Made:
    path, kind = (
        place.path("odd.mp4"),
        str(place.pick(["pipe", "zero", "random", "folder", "socket", "loop", "absent"])),
    )
    if kind == "pipe":
        os.mkfifo(path)
    elif kind in ("zero", "random"):
        path.symlink_to(f"/dev/{kind}")
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    elif kind == "loop":
        path.symlink_to(path.name)
    good = refused("not-media", "missing-file", "unreadable")
    return Made(path, lambda out: good(out) or ("" if out.seconds < 5 else f"{out.seconds:.0f} s for a {kind}"))


def huge_picture(place: Place) -> Made:
    side = int(place.pick([9000, 16384, 30000, 65535]))  # type: ignore[call-overload]
    in_frames = place.rng.random() < 0.5
    if in_frames:
        recipe = replace(place.recipe("mov"), codec="png", pixels="rgb24", frames=place.stock.frames(0)[:4])
        write(place.path("plain.mov"), recipe)
        data = place.path("plain.mov").read_bytes()
        parts = data.split(b"IHDR")
        size = struct.pack(">II", side, side)
        data = b"IHDR".join([parts[0], *(size + part[8:] for part in parts[1:])])
    else:
        _, data = place.clip(("mp4",))
    size = struct.pack(">HH", side, side)
    data = joined(
        edited(boxes(data), b"stsd", lambda body: body[:40] + size + body[44:] if b"mp4a" not in body else body)
    )
    # The frames of H.264 state their own size, so that the size in the index is not used.
    judge = refused("too-large", "decode-error", "truncated", sound=False) if in_frames else anything
    return Made(place.put("huge.mov", data), judge)


def stated_hours(place: Place) -> Made:
    _, data = place.clip(("mp4", "mov"))
    where = str(place.pick(["mvhd", "mdhd", "tkhd", "stts"]))
    offset = {"mvhd": 16, "mdhd": 16, "tkhd": 20, "stts": 12}[where]
    value = int(place.pick([1 << 28, 0x7FFFFFFF, 0xFFFFFFF0]))  # type: ignore[call-overload]
    changed = edited(
        boxes(data), where.encode(), lambda body: body[:offset] + struct.pack(">I", value) + body[offset + 4 :]
    )

    def judge(out: Outcome) -> str:
        return "" if out.picture or len(out.numbers) <= COUNT + 1 else f"{len(out.numbers)} frames"

    return Made(place.put("hours.mp4", joined(changed)), judge if where == "stts" else complete_or_refused("mp4"))


def one_frame(place: Place) -> Made:
    kind = str(place.pick(["mp4", "mkv", "avi", "ts"]))
    recipe = place.recipe(kind)
    write(place.path(f"one.{kind}"), replace(recipe, frames=recipe.frames[:1], sounds=()))  # type: ignore[index]
    return Made(place.path(f"one.{kind}"), right([0], starts=None))


def sound_only(place: Place) -> Made:
    suffix, codec = (("mp4", "aac"), ("wav", "pcm_s16le"), ("mp3", "libmp3lame"), ("flac", "flac"), ("mkv", "aac"))[
        int(place.rng.integers(5))
    ]
    recipe = replace(place.recipe(), frames=None, suffix=suffix, sound_codec=codec)
    recipe = replace(recipe, cover=1 if suffix in ("mp4", "mp3") and place.rng.random() < 0.4 else None)
    write(place.path("sound.mp4"), recipe)
    good = refused("no-video", sound=False)
    heard = lambda out: "" if out.starts is not None and abs(out.starts) < 0.06 else f"sound {out.sound or out.starts}"  # noqa: E731
    return Made(place.path("sound.mp4"), lambda out: good(out) or heard(out))


def wrong_suffix(place: Place) -> Made:
    kind, data = place.clip()
    return Made(
        place.put(f"really-{kind}.{place.pick(['mp4', 'mkv', 'avi', 'jpg', 'txt', 'ffconcat'])}", data), right()
    )


def every_format(place: Place) -> Made:
    kind, data = place.clip(list(FORMATS))
    return Made(place.put(f"format.{FORMATS[kind].suffix}", data), right())


def in_archive(place: Place) -> Made:
    kind, data = place.clip()
    whole = place.rng.random() < 0.5
    data = data if whole else data[: int(place.rng.integers(1, len(data)))]
    with tarfile.open(place.path("clips.tar"), "w") as archive:
        archive.add(place.put(f"a.{kind}", data), f"a.{kind}")
    return Made(place.path("clips.tar"), right() if whole else complete_or_refused(kind), f"a.{kind}")


def variable_rate(place: Place) -> Made:
    recipe = place.recipe("mkv")
    times = np.concatenate([[0], np.cumsum(place.rng.integers(15, 90, COUNT - 1))]) / 1000
    suffix = str(place.pick(["mp4", "mkv"]))
    write(place.path(f"rate.{suffix}"), replace(recipe, suffix=suffix, times=times.tolist(), sounds=()))

    def judge(out: Outcome) -> str:
        if out.picture:
            return f"refused as {out.picture}"
        off = [abs(times[n] - k / 25) - np.abs(times - k / 25).min() for k, n in enumerate(out.numbers)]
        if max(off) > 2e-3:
            return f"frame {int(np.argmax(off))} is {max(off):.3f} s off"
        return "" if abs(len(out.numbers) - times[-1] * 25 - 1) <= 3 else f"{len(out.numbers)} frames"

    return Made(place.path(f"rate.{suffix}"), judge)


def late_sound(place: Place) -> Made:
    late = float(place.rng.uniform(0.05, 0.8))
    suffix = str(place.pick(["mp4", "mkv", "mov"]))
    write(place.path(f"late.{suffix}"), replace(place.recipe(suffix), sound_start=late))
    return Made(place.path(f"late.{suffix}"), right(starts=-late))


def _two_inputs(one: Path, two: Path, target: Path) -> Path:
    import av

    with av.open(str(one)) as first, av.open(str(two)) as second, av.open(str(target), "w") as out:
        maps = [{s.index: out.add_stream_from_template(s) for s in source.streams} for source in (first, second)]
        for source, streams in zip((first, second), maps, strict=True):
            for packet in source.demux():
                if packet.size:
                    packet.stream = streams[packet.stream.index]
                    out.mux(packet)
    return target
