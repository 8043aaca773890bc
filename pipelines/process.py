"""One clip from its file to one row of a shard: probe, decode, track, crop, audio, encode."""

from __future__ import annotations

import errno
import hashlib
import logging
import math
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.child_process import enter_stage
from pipelines.frames_codec import get_codec
from pipelines.settings import PreprocessSettings
from pipelines.shards import Record, clip_digest
from pipelines.staging import Staging
from talking_face.clip import Clip, MediaSource
from talking_face.faces.crop import apply_transform, crop_frame, stable_box
from talking_face.faces.track import FaceTrack, jitter, smooth_landmarks, track_face
from talking_face.media import AUDIO_RATE, iter_frames, probe, read_audio
from talking_face.media.source import open_source
from talking_face.reasons import ClipError, Reason

# Frames of a short clip are kept from tracking to cropping (4 s of 1080p fit); beyond this many bytes the clip is
# decoded a second time, 35 ms a 1080p frame, so that a five-minute clip needs no more memory than this.
_KEEP_BYTES = 640 << 20

log = logging.getLogger(__name__)

PROCESS = "pipelines.process:process_to_staging"


def process_to_staging(clip: Clip, settings: dict[str, Any], staging: str, root: str) -> dict[str, Any]:
    """Processes a clip and stores its record in the staging folder. Returns its ledger row, whatever happens to it.

    Only a full disk is raised (OSError): that is no fault of the clip.
    """
    place = Staging(Path(staging))
    started = time.perf_counter()
    stage = ["probe"]
    ledger: dict[str, Any] = {"clip_id": clip.clip_id, "source": relative(clip.video, root)}
    record: Record | None = None
    try:
        ledger["source_bytes"] = source_bytes(clip.video)
        ledger["source_sha256"] = fingerprint(clip.video)
        record = process_clip(clip, PreprocessSettings.model_validate(settings), root, ledger["source_sha256"], stage)
        ledger |= {"status": "kept", "stage": "", "reason": "", "detail": ""}
    except ClipError as error:
        ledger |= {"status": "dropped", "stage": stage[0], "reason": error.reason.value, "detail": error.detail}
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        log.exception("%s: stage %s", clip.clip_id, stage[0])
        words = " ".join(str(error).split())[:200]
        detail = f"{stage[0]} failed: {type(error).__name__}: {words}"
        ledger |= {"status": "dropped", "stage": stage[0], "reason": Reason.CRASHED.value, "detail": detail}
    ledger["seconds"] = time.perf_counter() - started
    place.put(ledger, record)
    return ledger


def process_clip(
    clip: Clip, settings: PreprocessSettings, root: str, sha256: str = "", stage: list[str] | None = None
) -> Record:
    """The clip's record: a value for every column of `pipelines.shards.SCHEMA`.

    `stage[0]` always names the stage under way. Raises ClipError where the clip cannot be used.
    """
    stage = stage if stage is not None else [""]

    def enter(name: str) -> None:
        stage[0] = name
        enter_stage(name)

    enter("probe")
    info = probe(clip.video)
    if info.video is None:
        raise ClipError(Reason.NO_VIDEO, f"{clip.video} has no picture")
    if info.duration > settings.max_seconds:
        raise ClipError(
            Reason.TOO_LONG, f"{clip.video} lasts {info.duration:.1f} s; at most {settings.max_seconds:g} s are taken"
        )
    warnings: list[str] = []
    sound = _sound_source(clip, info.audio is not None, warnings)
    if sound is None and settings.require_audio:
        raise ClipError(Reason.NO_AUDIO, f"{clip.video} has no sound, and there is no sound file beside it")

    enter("track")
    kept = _Kept(clip.video, settings.fps, settings.max_seconds)
    track = track_face(kept.first_pass(), settings.fps)
    n_frames, n_valid = len(track), int(track.valid.sum())
    if n_frames < settings.min_frames:
        raise ClipError(
            Reason.TOO_SHORT,
            f"{clip.video} has {n_frames} frames at {settings.fps:g}/s; {settings.min_frames} are needed",
        )
    if n_valid == 0:
        raise ClipError(Reason.NO_FACE, f"no face found in any of the {n_frames} frames of {clip.video}")
    if n_valid < settings.min_valid_fraction * n_frames:
        raise ClipError(
            Reason.FEW_FACES,
            f"a face in {n_valid} of {n_frames} frames of {clip.video}; "
            f"{settings.min_valid_fraction:.0%} of them must show one",
        )

    enter("crop")
    crops, transform = _crop(kept, track, settings)
    landmarks = apply_transform(transform[None], track.landmarks)
    smoothed = smooth_landmarks(landmarks, track.valid)

    enter("audio")
    wanted = round(n_frames / settings.fps * AUDIO_RATE)
    samples = read_audio(sound, AUDIO_RATE) if sound is not None else np.zeros(0, np.int16)
    surplus = len(samples) - wanted
    if sound is None:
        warnings.append("no-audio")
    elif abs(surplus) > AUDIO_RATE // 5:
        warnings.append(f"audio-{'longer' if surplus > 0 else 'shorter'}-by-{abs(surplus) / AUDIO_RATE:.2f}s")
    if n_valid < n_frames:
        warnings.append(f"frames-without-face-{n_frames - n_valid}")
    audio = np.zeros(wanted, np.int16)
    audio[: min(wanted, len(samples))] = samples[:wanted]

    enter("encode")
    noise = jitter(landmarks, track.valid)
    record: Record = {
        **{name: getattr(clip, name) for name in _IDENTITY},
        "source": relative(clip.video, root),
        "audio_source": relative(sound, root) if sound is not None and sound != clip.video else None,
        "source_sha256": sha256,
        "source_width": info.video.width,
        "source_height": info.video.height,
        "source_fps": info.video.fps,
        "source_codec": info.video.codec,
        "source_pix_fmt": info.video.pix_fmt,
        "fps": settings.fps,
        "size": settings.size,
        "codec": settings.codec,
        "n_frames": n_frames,
        "n_valid": n_valid,
        "valid_fraction": n_valid / n_frames,
        "jitter": None if math.isnan(noise) else noise,
        "audio_surplus": surplus if sound is not None else None,
        "warnings": warnings,
        "frames": get_codec(settings.codec).encode(crops),
        "landmarks": landmarks,
        "landmarks_smoothed": smoothed,
        "blendshapes": track.blendshapes,
        "valid": track.valid,
        "crop_transform": np.repeat(transform[None], n_frames, axis=0),
        "audio": audio,
    }
    record["clip_digest"] = clip_digest(record)
    return record


_IDENTITY = (
    *("clip_id", "dataset", "speaker", "emotion", "emotion_voted", "intensity", "take", "view"),
    *("sentence_id", "transcript", "split"),
)


class _Kept:
    """A clip's frames for two passes: kept when they are few, decoded again when they are many."""

    def __init__(self, source: MediaSource, fps: float, max_seconds: float) -> None:
        self._source, self._fps, self._max_frames = source, fps, math.ceil(max_seconds * fps)
        self._frames: list[np.ndarray] | None = []
        self._bytes = 0
        self._last: np.ndarray | None = None

    def first_pass(self) -> Iterator[np.ndarray]:
        for index, frame in enumerate(iter_frames(self._source, self._fps)):
            if index >= self._max_frames:  # a header that hides the length
                limit = self._max_frames / self._fps
                raise ClipError(Reason.TOO_LONG, f"{self._source} lasts more than {limit:g} s, which is what is taken")
            if self._frames is not None:
                # A source slower than the output repeats frames; the repeats share one array.
                self._bytes += 0 if frame is self._last else frame.nbytes
                self._last = frame
                self._frames.append(frame)
                if self._bytes > _KEEP_BYTES:
                    self._frames = None
            yield frame

    def second_pass(self) -> Iterator[np.ndarray]:
        return iter_frames(self._source, self._fps) if self._frames is None else iter(self._frames)


def _crop(kept: _Kept, track: FaceTrack, settings: PreprocessSettings) -> tuple[np.ndarray, np.ndarray]:
    """((T, S, S, 3) uint8 RGB crops, (2, 3) float32 transform from source to crop pixels)."""
    box = stable_box(track.landmarks, track.valid, settings.enlarge, track.size)
    crops = np.empty((len(track), settings.size, settings.size, 3), np.uint8)
    for index, frame in enumerate(kept.second_pass()):
        crops[index] = crop_frame(frame, box, settings.size)
    return crops, box.transform(settings.size)


def _sound_source(clip: Clip, video_has_sound: bool, warnings: list[str]) -> MediaSource | None:
    """The separate file where it holds sound, else the video's own track with a warning, else None."""
    if clip.audio is not None:
        try:
            if probe(clip.audio).audio is not None:
                return clip.audio
        except ClipError:
            if not video_has_sound:
                raise
        warnings.append("sound-file-unreadable-video-track-used" if video_has_sound else "sound-file-without-sound")
    return clip.video if video_has_sound else None


def relative(source: MediaSource, root: str) -> str:
    """The source below the root, as the ledger shows it: shards are the same wherever the dataset lies."""
    path = os.path.relpath(source.path, root).replace(os.sep, "/")
    return path if source.member is None else f"{path}!{source.member}"


def source_bytes(source: MediaSource) -> int | None:
    """Size of the file or tar member; None where it cannot be told."""
    try:
        return source.size if source.member is not None else Path(source.path).stat().st_size
    except OSError:
        return None


def fingerprint(source: MediaSource) -> str:
    """SHA-256, hex, of the file or of the tar member. Raises ClipError where it cannot be read."""
    sha = hashlib.sha256()
    with ExitStack() as stack:
        opened = stack.enter_context(open_source(source))
        file = stack.enter_context(Path(opened).open("rb")) if isinstance(opened, str) else opened
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()
