"""Measures size, speed and quality of the frame codecs on face crops of real clips, and prints a Markdown table.

Run as `python -m cmet_pipelines.codec_table CLIPS...`.

Each clip is decoded, tracked and cropped as in preprocessing. Then the crops of the clip are encoded and decoded with
every codec on one thread. PSNR compares the decoded crop with the crop before encoding, in RGB. PSNR is computed per
frame and averaged over each clip. The table prints the lowest of these averages.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from cmet_pipelines.frames_codec import DEFAULT_CODEC, LOSSLESS_CODEC, get_codec
from talking_face.faces.crop import crop_picture, stable_box
from talking_face.faces.track import track_face
from talking_face.media import iter_pictures
from talking_face.pretrained.model_files import ModelFiles
from talking_face.threads import limit_threads

CODECS = (
    *("png", "webp-lossless", "ffv1", "x264rgb-lossless", "x264rgb-lossless-gop25"),
    *("jpeg-q95", "jpeg-q96", "jpeg-q97", "jpeg420-q97", "webp-q95", "webp-q100"),
    *("x264-q4", "x264-q8", "x264-q10", "x264-q4-gop25", "x264-q8-gop25"),
    *("x264rgb-q12", "x264rgb-q8-gop25", "x264rgb-q12-gop25"),
)


def crops(path: Path, size: int, files: ModelFiles) -> np.ndarray:
    """The clip's face crops: (T, S, S, 3) uint8 RGB."""
    pictures = list(iter_pictures(path))
    track = track_face(pictures, files=files)
    box = stable_box(track.landmarks, track.valid, picture=track.size)
    return np.stack([crop_picture(picture, box, size) for picture in pictures])


def mean_psnr(crop: np.ndarray, stored: np.ndarray) -> float:
    """Mean over frames of the PSNR in dB. If any decoded frame equals its crop exactly, the result is infinite."""
    error = ((crop.astype(np.float32) - stored) ** 2).mean(axis=(1, 2, 3))
    return float(np.mean(10 * np.log10(255**2 / error))) if (error > 0).all() else float("inf")


def measure(name: str, clips: Sequence[np.ndarray], repeats: int = 3) -> str:
    """One row of the table. Each speed is the best of `repeats` runs, because other programs can slow a run down."""
    codec = get_codec(name)
    frames = sum(len(clip) for clip in clips)
    encode_s = decode_s = one_s = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        stored = [codec.encode(clip) for clip in clips]
        encode_s = min(encode_s, time.perf_counter() - started)
        started = time.perf_counter()
        decoded = [codec.decode(blobs) for blobs in stored]
        decode_s = min(decode_s, time.perf_counter() - started)
        started = time.perf_counter()
        for blobs, clip in zip(stored, clips, strict=True):
            codec.decode(blobs, [len(clip) * 2 // 3])
        one_s = min(one_s, (time.perf_counter() - started) / len(clips))
    lowest = min(mean_psnr(clip, back) for clip, back in zip(clips, decoded, strict=True))
    kilobytes = sum(len(blob) for blobs in stored for blob in blobs) / 1e3
    mark = {DEFAULT_CODEC: " (default)", LOSSLESS_CODEC: " (`--lossless`)"}.get(name, "")
    quality = "lossless" if lowest == float("inf") else f"{lowest:.2f} dB"
    return (
        f"| `{name}`{mark} | {kilobytes / len(clips):.0f} | {kilobytes / frames:.1f} | {frames / encode_s:.0f} "
        f"| {frames / decode_s:.0f} | {one_s * 1e3:.1f} | {quality} |"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m cmet_pipelines.codec_table", description=__doc__)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--codecs", nargs="*", default=CODECS)
    given = parser.parse_args(argv)
    limit_threads(1)
    cv2.setNumThreads(1)
    files = ModelFiles.from_environment()
    found = [crops(path, given.size, files) for path in given.clips]
    print(
        f"{len(found)} clips, {sum(map(len, found))} frames of {given.size}x{given.size}; one thread, "
        f"best of 3, {platform.machine()} {platform.system()}, OpenCV {cv2.__version__}\n"
    )
    print("| codec | kB a clip | kB a frame | encode frames/s | decode frames/s | one frame, ms | lowest clip's PSNR |")
    print("|---|---|---|---|---|---|---|")
    for name in given.codecs:
        print(measure(name, found), flush=True)


if __name__ == "__main__":
    main()
