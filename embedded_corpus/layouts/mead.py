"""Writes the embedded corpus as MEAD: M901/video/front/<emotion>/level_<n>/<number>.mp4, and M901/audio/."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import av

from embedded_corpus.clip import FPS, ClipSpec, render_clip
from embedded_corpus.layouts import TRUTH, tar_of, write_once, write_truth
from embedded_corpus.voice import RATE
from talking_face.media.writing import Encoding, copy_sound, write_video

SIZE = "640x360"  # MEAD has pictures of 1080p, but pictures of 640x360 are drawn nine times faster
# The preset "ultrafast" gives the same file size and quality as slower presets (0.3 MB, 44 dB) in half the time. For
# comparison, the drawing of a clip takes 0.4 s.
_ENCODING = Encoding(crf=18, preset="ultrafast", pix_fmt="yuvj444p", audio_channels=2)


def select(specs: Sequence[ClipSpec]) -> list[ClipSpec]:
    """All clips, because MEAD has all eight emotions."""
    return list(specs)


def paths(out: Path, spec: ClipSpec) -> tuple[Path, ...]:
    """The files of a clip: video, sound and ground truth."""
    at = Path(spec.emotion) / f"level_{spec.level}" / f"{spec.take:03d}"
    home = out / spec.speaker
    return (
        (home / "video" / "front" / at).with_suffix(".mp4"),
        (home / "audio" / at).with_suffix(".m4a"),
        (out / TRUTH / spec.speaker / "front" / at).with_suffix(".json"),
    )


def write(out: Path, spec: ClipSpec) -> None:
    """Writes the video (H.264 High 4:4:4 Predictive, full range) and the sound (AAC LC, 48 kHz stereo), as in MEAD."""
    frames, sound, truth = render_clip(spec)
    video, audio, truth_file = paths(out, spec)
    write_video(video, frames, FPS, sound, RATE, _ENCODING)
    copy_sound(video, audio)  # encoding the sound a second time takes a tenth of the time of a clip
    write_truth(truth_file, truth)


def finish(out: Path, specs: Sequence[ClipSpec]) -> None:
    """Writes nothing, because MEAD has no label file."""


def add_defects(out: Path, specs: Sequence[ClipSpec]) -> None:
    """Writes additional actors in every form of the download, and damaged files in the folders of the first speaker.

    All these files are made from the first two clips of the first speaker. If the file number of such a clip is new,
    the number differs from the original number by a multiple of sixteen, so that both numbers mean the same sentence.
    """
    first, second = specs[0], specs[min(1, len(specs) - 1)]
    takes = []
    for spec in (first, second):
        video, sound, _ = paths(out, spec)
        takes.append((_at(spec), video.read_bytes(), sound.read_bytes()))
    _add_archives(out, takes)
    _add_damaged(out, first, *takes[0][1:])


def _at(spec: ClipSpec, more: int = 0) -> str:
    return f"{spec.emotion}/level_{spec.level}/{spec.take + more:03d}"


def _add_archives(out: Path, takes: Sequence[tuple[str, bytes, bytes]]) -> None:
    """Writes the actors M900, W900, M900-1, ... as tars that are complete, split, nested, truncated or compressed."""
    (one, video, sound), (two, other, _) = takes
    sounds = _tar({f"audio/{at}.m4a": m4a for at, _, m4a in takes})
    for actor in ("M900", "W900", "M900-1", "M900-2"):
        write_once(out / "Part0" / actor / "audio.tar", sounds)
    odd = {
        "video/front/._resource": b"AppleDouble",
        f"../front/{one}.mp4": video[:100],
        "video/front/bored/level_1/001.mp4": video[:100],
    }
    a, b = {f"video/front/{one}.mp4": video}, {f"video/front/{two}.mp4": other}
    side = {f"video/left_30/{one}.mp4": video}
    write_once(
        out / "Part0" / "M900" / "video.tar", _tar(a | b | side | odd, {"video/front/link.mp4": "/etc/hostname"})
    )
    write_once(out / "Part0" / "W900" / "video_1.tar", _tar(a | side))
    write_once(out / "Part0" / "W900" / "video_2.tar", _tar(b))
    inner = {"video/1.tar": _tar({f"front/{one}.mp4": video}), "video/2.tar": _tar({f"front/{two}.mp4": other})}
    write_once(out / "Part0" / "M900-1" / "video.tar", _tar(inner))
    whole = _tar(a | b)
    write_once(out / "Part0" / "M900-2" / "video.tar.partaa", whole[: len(video) // 2])
    write_once(out / "Part0" / "M900-2" / "video.tar.partab", whole[len(video) // 2 :])
    cut = len(video) + 1536 + len(other) // 2  # a position in the second member, after two headers and padding
    write_once(out / "Part0" / "W900-1" / "video.tar", whole[:cut])
    write_once(out / "Part0" / "W900-2" / "video.tar", gzip.compress(_tar({f"audio/{one}.m4a": sound}), mtime=0))
    write_once(out / "Part0" / "W900-3" / "video.tar", b"<html>Too many users have viewed this file.</html>\n" * 20)
    write_once(out / "Part0" / "W900_video.zip", b"PK\x03\x04" + bytes(60))


def _add_damaged(out: Path, spec: ClipSpec, video: bytes, sound: bytes) -> None:
    """Writes incomplete and damaged files of the first speaker, and a clip of another view.

    Also writes an actor whose name has a suffix, a folder without an actor's name, and a known bad clip.
    """
    home = out / spec.speaker
    mute = _without_sound(video)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize %d\n"
    pairs: list[tuple[bytes | None, bytes | None]] = [
        (video, None),  # the sound track of the video is used
        (mute, sound),
        (video, b""),  # the sound track of the video is used
        (mute, None),  # no sound at all
        (b"", sound),
        (pointer % len(video), sound),
        (video[: len(video) * 6 // 10], sound),
        (None, sound),  # sound without a video
    ]
    for index, (mp4, m4a) in enumerate(pairs):
        at = _at(spec, 16 * (50 + index))
        if mp4 is not None:
            write_once(home / "video" / "front" / f"{at}.mp4", mp4)
        if m4a is not None:
            write_once(home / "audio" / f"{at}.m4a", m4a)
    at = _at(spec)
    write_once((home / "video" / "front" / at).with_name(f"._{spec.take:03d}.mp4"), b"AppleDouble")
    write_once(home / "video" / "left_30" / f"{at}.mp4", video)
    write_once(home / "video" / "front" / spec.emotion / "level_9" / f"{spec.take:03d}.mp4", video[:100])
    write_once(out / f"{spec.speaker}-2_video" / "video" / "1" / "front" / f"{at}.mp4", video)
    write_once(out / "video28" / "video" / "front" / f"{at}.mp4", video[:100])  # no actor's name
    write_once(out / "W033" / "video" / "front" / "sad" / "level_1" / "007.mp4", video)


def _tar(members: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    return tar_of(members, tarfile.PAX_FORMAT, links)


def _without_sound(mp4: bytes) -> bytes:
    """The video file without its sound track. The pictures are not encoded again."""
    file = io.BytesIO()
    options = {"fflags": "+bitexact"}
    with av.open(io.BytesIO(mp4), "r") as source, av.open(file, "w", format="mp4", options=options) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return file.getvalue()
