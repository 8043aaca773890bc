"""One clip from its file to one row of a shard: probe, decode, track, crop or align, audio, figures, encode."""

from __future__ import annotations

import errno
import hashlib
import logging
import math
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from cmet_pipelines import quality
from cmet_pipelines.frames_codec import get_codec
from cmet_pipelines.settings import PreprocessSettings
from cmet_pipelines.shards import Record, clip_digest
from cmet_pipelines.staging import Staging
from talking_face.clip import Clip, MediaSource
from talking_face.execution.child_process import enter_stage
from talking_face.faces.align import AlignMode, align_mode, cut, find_dlib68, region_of, transforms
from talking_face.faces.crop import apply_transform
from talking_face.faces.points68 import to_68
from talking_face.faces.track import FaceTrack, Window, jitter, smooth_landmarks, track_face
from talking_face.media import AUDIO_RATE, Picture, iter_pictures, probe, read_audio
from talking_face.media.source import open_source
from talking_face.reasons import ClipError, Reason, UserError

# Windows around the face are kept from tracking to cropping (2 MB of a 1080p 4:4:4 frame, so 8 s of MEAD fit); beyond
# this many bytes the clip is decoded a second time, 6 ms a frame, so that a long clip needs no more memory than this.
_KEEP_BYTES = 384 << 20
_FIGURES_EVERY = 5  # frames; sharpness and brightness hardly change within 0.2 s

log = logging.getLogger(__name__)

PROCESS = "cmet_pipelines.process:process_to_staging"


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
        detail = error.detail.replace(f"{root}{os.sep}", "")  # ledgers are the same wherever the dataset lies
        ledger |= {"status": "dropped", "stage": stage[0], "reason": error.reason.value, "detail": detail}
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
    """The clip's record: a value for every column of `cmet_pipelines.shards.SCHEMA`.

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

    @cache
    def samples() -> np.ndarray | None:
        back = stage[0]
        enter("audio")
        read = None if sound is None else read_audio(sound, AUDIO_RATE)
        enter(back)
        return read

    enter("track")
    kept, seen = _KeptFaces(), _Thumbnails()
    pictures = seen.watch(_pictures(clip.video, settings))
    track = track_face(pictures, settings.fps, kept.watch, samples if sound is not None else None)
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
    mode = align_mode(settings.align)
    placed = _transforms(mode, track, clip.video, settings, warnings)
    transform = placed.astype(np.float32)
    smoothed = apply_transform(transform, smooth_landmarks(track.landmarks, track.valid))
    landmarks = apply_transform(transform, track.landmarks)
    cuts = quality.scene_cuts(seen.stack())
    compared = quality.identity_samples(track.valid, quality.doubtful_frames(track.landmarks, track.valid, cuts))
    figures = _Figures(compared)
    crops = _crops(kept, mode, placed, track.size, clip.video, settings)
    frames = get_codec(settings.codec).encode(figures.watch(crops))

    enter("quality")
    distance = _identity_distance(figures, landmarks, warnings)
    n_black = int(quality.black_frames(seen.stack()).sum())
    sharpness, brightness = figures.medians()

    enter("audio")
    wanted = round(n_frames / settings.fps * AUDIO_RATE)
    heard = samples()
    heard = np.zeros(0, np.int16) if heard is None else heard
    surplus = len(heard) - wanted
    if sound is None:
        warnings.append("no-audio")
    elif abs(surplus) > AUDIO_RATE // 5:
        warnings.append(f"audio-{'longer' if surplus > 0 else 'shorter'}-by-{abs(surplus) / AUDIO_RATE:.2f}s")
    if n_valid < n_frames:
        warnings.append(f"frames-without-face-{n_frames - n_valid}")
    audio = np.zeros(wanted, np.int16)
    audio[: min(wanted, len(heard))] = heard[:wanted]
    if cuts:
        warnings.append(f"scene-cuts-{len(cuts)}")
    if n_black:
        warnings.append(f"black-frames-{n_black}")
    if distance is not None and distance > quality.SAME_PERSON:
        warnings.append(f"another-face-{distance:.2f}")
    if track.choice.how == "largest":
        warnings.append(f"largest-of-{track.n_faces}-faces")

    scale = float(np.median(np.linalg.norm(placed[:, :, 0], axis=1)))
    noise = jitter(track.landmarks, track.valid) * scale
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
        "align": settings.align,
        "size": settings.size,
        "codec": settings.codec,
        "n_frames": n_frames,
        "n_valid": n_valid,
        "valid_fraction": n_valid / n_frames,
        "jitter": None if math.isnan(noise) else noise,
        "audio_surplus": surplus if sound is not None else None,
        "n_faces": track.n_faces,
        "face_choice": track.choice.how,
        "face_margin": track.choice.margin,
        "face_height": quality.face_height(track.landmarks, track.valid),
        "sharpness": sharpness,
        "brightness": brightness,
        "black_frames": n_black,
        "scene_cuts": cuts,
        "identity_distance": distance,
        "warnings": warnings,
        "frames": frames,
        "landmarks": landmarks,
        "landmarks_smoothed": smoothed,
        "blendshapes": track.blendshapes,
        "valid": track.valid,
        "crop_transform": transform,
        "audio": audio,
    }
    record["clip_digest"] = clip_digest(record)
    return record


_IDENTITY = (
    *("clip_id", "dataset", "speaker", "emotion", "emotion_voted", "intensity", "take", "view"),
    *("sentence_id", "transcript", "split"),
)


def _pictures(source: MediaSource, settings: PreprocessSettings) -> Iterator[Picture]:
    """The clip's pictures. Raises ClipError past the longest length that is taken: headers can hide a length."""
    limit = math.ceil(settings.max_seconds * settings.fps)
    for index, picture in enumerate(iter_pictures(source, settings.fps)):
        if index >= limit:
            raise ClipError(
                Reason.TOO_LONG, f"{source} lasts more than {settings.max_seconds:g} s, which is what is taken"
            )
        yield picture


class _KeptFaces:
    """The window around the face of every picture, in its own pixel format, until the crop is known.

    The crop is one box for the whole clip, so it stands only when the last frame is tracked. Whole frames are not kept.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[Picture, tuple[int, int]]] | None = []  # picture of the window, its left and top
        self._bytes = 0
        self._last: tuple[Picture | None, Window | None] = (None, None)

    def watch(self, picture: Picture, window: Window | None) -> None:
        """Called by track_face for every picture."""
        if self._parts is None:
            return
        if self._parts and self._last == (picture, window):  # a repeated frame
            self._parts.append(self._parts[-1])
            return
        self._last = (picture, window)
        inside = picture.snap(*window) if window else (0, 0, 0, 0)
        if inside[2] - inside[0] < 2 or inside[3] - inside[1] < 2:
            self._parts = None  # no face yet: what the crop will need of this picture is not known
            return
        part = picture.copy(*inside)
        self._parts.append((part, inside[:2]))
        self._bytes += part.nbytes
        if self._bytes > _KEEP_BYTES:
            self._parts = None

    def crops(
        self, mode: AlignMode, placed: np.ndarray, picture: tuple[int, int], size: int
    ) -> Iterator[np.ndarray] | None:
        """The crops, where every kept window holds all that its crop shows of the picture."""
        if self._parts is None:
            return None
        for (part, (x, y)), transform in zip(self._parts, placed, strict=True):
            left, top, right, bottom = region_of(mode, transform, size, picture)
            if x > left or y > top or x + part.width < right or y + part.height < bottom:
                return None
        return (
            cut(mode, part, transform, size, offset)
            for (part, offset), transform in zip(self._parts, placed, strict=True)
        )


class _Thumbnails:
    """A small grey copy of every picture that passes by: 2 kB each."""

    def __init__(self) -> None:
        self._small: list[np.ndarray] = []

    def watch(self, pictures: Iterator[Picture]) -> Iterator[Picture]:
        last: Picture | None = None
        for picture in pictures:
            self._small.append(self._small[-1] if picture is last else picture.thumbnail(*quality.THUMBNAIL))
            last = picture
            yield picture

    def stack(self) -> np.ndarray:
        """(T, h, w) uint8."""
        return np.stack(self._small)


class _Figures:
    """Sharpness and brightness of the crops that pass by, and those crops that are asked for."""

    def __init__(self, wanted: list[int]) -> None:
        self.crops: dict[int, np.ndarray] = dict.fromkeys(wanted, np.zeros(0, np.uint8))
        self._figures: list[tuple[float, float]] = []

    def watch(self, crops: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for index, crop in enumerate(crops):
            if index % _FIGURES_EVERY == 0:
                self._figures.append(quality.sharpness_and_brightness(crop))
            if index in self.crops:
                self.crops[index] = crop
            yield crop

    def medians(self) -> tuple[float, float]:
        """(sharpness, brightness)"""
        sharpness, brightness = np.median(self._figures, axis=0)
        return float(sharpness), float(brightness)


def _transforms(
    mode: AlignMode, track: FaceTrack, source: MediaSource, settings: PreprocessSettings, warnings: list[str]
) -> np.ndarray:
    """(T, 2, 3) float64. A mode on dlib's points finds them in every picture anew; where it finds none, MediaPipe's
    stand in, with a warning."""
    points = track.landmarks
    if mode.points == "dlib68":
        found = [find_dlib68(picture.rgb()) for picture in iter_pictures(source, settings.fps)]
        points = np.stack([mesh if own is None else own for own, mesh in zip(found, to_68(points), strict=True)])
        if missed := sum(own is None and seen for own, seen in zip(found, track.valid, strict=True)):
            warnings.append(f"aligned-on-mediapipe-{missed}")
        valid = np.array([own is not None for own in found]) | track.valid
    else:
        valid = track.valid
    return transforms(mode, points, valid, track.size, settings.size, settings.enlarge)


def _identity_distance(figures: _Figures, landmarks: np.ndarray, warnings: list[str]) -> float | None:
    """None where there was no reason to compare."""
    if not figures.crops:
        return None
    try:
        return quality.identity_distance(list(figures.crops.values()), [landmarks[index] for index in figures.crops])
    except UserError:  # dlib's network is not here
        warnings.append("identity-not-compared")
        return None


def _crops(
    kept: _KeptFaces,
    mode: AlignMode,
    placed: np.ndarray,
    picture: tuple[int, int],
    source: MediaSource,
    settings: PreprocessSettings,
) -> Iterator[np.ndarray]:
    """The clip's crops, (size, size, 3) uint8 RGB each; decodes the clip once more where they were not kept."""
    crops = kept.crops(mode, placed, picture, settings.size)
    if crops is None:
        wholes = iter_pictures(source, settings.fps)
        crops = (cut(mode, whole, transform, settings.size) for whole, transform in zip(wholes, placed, strict=True))
    return crops


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
