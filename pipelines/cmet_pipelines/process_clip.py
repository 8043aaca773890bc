"""Processes one clip in named steps: open, track, check the face, place the crop, encode and measure, fit the audio.

The result is one row of a shard (`cmet_pipelines.records.ClipRecord`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from cmet_pipelines import quality
from cmet_pipelines.collectors import CropFigures, FaceWindows, Thumbnails
from cmet_pipelines.frames_codec import get_codec
from cmet_pipelines.processing import ProcessingSettings
from cmet_pipelines.records import ClipRecord
from cmet_pipelines.shard_files import set_digests
from cmet_pipelines.source_files import relative_path
from talking_face.clip import Clip, MediaSource
from talking_face.execution.stage import allow_seconds, enter_stage
from talking_face.faces.align import AlignMode, align_mode, cut, find_dlib68, transforms
from talking_face.faces.crop import apply_transform
from talking_face.faces.points68 import to_68
from talking_face.faces.track import FaceTrack, jitter, smooth_landmarks, track_face
from talking_face.media import AUDIO_RATE, Limits, Picture, iter_pictures, probe, read_sound
from talking_face.media.reading import MediaInfo, VideoInfo
from talking_face.media.sound import is_nearly_silent, level
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import ClipError, Reason, UserError

# Default deadline, after the headers were read: _START_S and 20 times the processor time of the frames.
# The factor is for machines on which other programs run: with 12 busy processes on 2 cores, a 1080p frame took
# 0.5 s in place of 0.026 s (box) and 7.4 s in place of 0.5 s (eat-128).
_START_S = 120.0
_WAITING = 20.0
_FASTEST = 240.0  # frames/s; damaged headers state up to 90,000
# Points that an align mode needs -> processor time in ms per frame, and in addition per megapixel of a frame.
_MS_PER_FRAME = {"mp478": (20.0, 5.0), "dlib68": (20.0, 250.0)}

_AUDIO_TOLERANCE = AUDIO_RATE // 5  # samples; a larger difference between sound and video length gives a warning


class StageLog:
    """The current stage of a clip. The worker also gets the stage, because the ledger needs it if the process dies."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def enter(self, name: str) -> None:
        """Begins the stage `name`."""
        self.name = name
        enter_stage(name)


@dataclass
class ClipWork:
    """The inputs that all steps need for one clip, and the warnings of the steps so far."""

    clip: Clip
    settings: ProcessingSettings
    root: str  # folder of the dataset
    stages: StageLog
    files: ModelFiles  # the folders of the face networks' files
    sha256: str = ""  # SHA-256 of the video file
    warnings: list[str] = field(default_factory=list)

    def pictures(self) -> Iterator[Picture]:
        """The clip's pictures at the frame rate of the settings. Raises ClipError; see `iter_pictures`."""
        return iter_pictures(self.clip.video, self.settings.fps, self.limits)

    @property
    def limits(self) -> Limits:
        """The limits of every decoder of the clip."""
        return Limits(seconds=self.settings.max_seconds)


@dataclass(frozen=True)
class OpenedClip:
    """The headers of the video, and the source of the sound."""

    video: VideoInfo
    sound: MediaSource | None  # the file whose sound is used; None if there is no sound
    samples: Callable[[], np.ndarray | None]  # returns (N,) int16, 16 kHz mono, or None; reads the file at first call


@dataclass(frozen=True)
class TrackedClip:
    """The face in every frame, and the parts of the frames that later steps need."""

    track: FaceTrack
    windows: FaceWindows
    thumbnails: np.ndarray  # (T, h, w) uint8 grey


@dataclass(frozen=True)
class Placement:
    """The place of the crop in every frame, and the landmarks in crop pixels."""

    mode: AlignMode
    transforms: np.ndarray  # (T, 2, 3) float64, from source px to crop px
    stored: np.ndarray  # `transforms` as float32, as the shard stores them
    landmarks: np.ndarray  # (T, 478, 3) float32, crop px
    smoothed: np.ndarray  # (T, 478, 3) float32, crop px


@dataclass(frozen=True)
class EncodedCrops:
    """The encoded crops of a clip, and measurements of its crops and pictures."""

    frames: list[bytes]  # as FrameCodec.encode returns them
    sharpness: float
    brightness: float
    black_frames: int
    scene_cuts: list[int]  # the first frame of every shot except the first shot
    identity_distance: float | None  # None if no faces were compared, or if dlib's network is missing


@dataclass(frozen=True)
class FittedAudio:
    """The sound, shortened or padded with zeros to the length of the pictures."""

    samples: np.ndarray  # (N,) int16, 16 kHz mono, N = round(T / fps * 16000)
    surplus: int | None  # number of samples removed (positive) or zeros added (negative); None if there is no sound


def process_clip(
    clip: Clip,
    settings: ProcessingSettings,
    root: str,
    sha256: str = "",
    stages: StageLog | None = None,
    *,
    files: ModelFiles,
) -> ClipRecord:
    """The clip's record: a value for every column of `cmet_pipelines.records.SCHEMA`.

    Args:
        clip: the clip.
        settings: settings of the processing.
        root: folder of the dataset. The record stores paths relative to this folder.
        sha256: SHA-256 of the video file; the record stores it.
        stages: a log that gets the name of each stage. After an error, the log holds the stage that failed.
        files: the folders of the face networks' files.

    Raises ClipError if the clip cannot be used.
    """
    work = ClipWork(clip, settings, root, stages or StageLog(), files, sha256)
    opened = open_clip(work)
    tracked = track_clip(work, opened)
    check_face(work, tracked.track)
    placement = place_crop(work, tracked.track)
    encoded = encode_crops(work, tracked, placement)
    audio = fit_audio(work, opened, len(tracked.track))
    note_doubts(work, tracked.track, encoded)
    return make_record(work, opened, tracked.track, placement, encoded, audio)


# -- open --------------------------------------------------------------------------------------------------------------


def open_clip(work: ClipWork) -> OpenedClip:
    """Reads the headers and chooses the source of the sound.

    Raises ClipError if the video has no picture, if the clip is too long, or if the clip has no sound although the
    settings require sound.
    """
    clip, settings = work.clip, work.settings
    work.stages.enter("probe")
    info = probe(clip.video, work.limits)
    if info.video is None:
        raise ClipError(Reason.NO_VIDEO, f"{clip.video} has no picture")
    if info.duration > settings.max_seconds:
        raise ClipError(
            Reason.TOO_LONG, f"{clip.video} lasts {info.duration:.1f} s; at most {settings.max_seconds:g} s are taken"
        )
    work.warnings += info.video.notes
    if settings.deadline_s is None:
        allow_seconds(default_deadline(info, settings))
    sound = _sound_source(clip, info.audio is not None, work.warnings)
    if sound is None and settings.require_audio:
        raise ClipError(Reason.NO_AUDIO, f"{clip.video} has no sound, and there is no sound file beside it")

    @cache
    def samples() -> np.ndarray | None:
        before = work.stages.name
        work.stages.enter("audio")
        read = None if sound is None else read_sound(sound, AUDIO_RATE, limits=work.limits)
        work.warnings += () if read is None else read.notes
        work.stages.enter(before)
        return None if read is None else read.samples

    return OpenedClip(info.video, sound, samples)


def default_deadline(info: MediaInfo, settings: ProcessingSettings) -> float:
    """Seconds that a clip may take, from its length, its picture size and the align mode.

    The length is `max_seconds` if the headers do not state it.
    """
    assert info.video is not None
    rate = min(max(settings.fps, info.video.fps), _FASTEST)
    frames = (info.duration or settings.max_seconds) * rate
    ms, ms_per_megapixel = _MS_PER_FRAME[align_mode(settings.align).points]
    megapixels = info.video.width * info.video.height / 1e6
    return _START_S + _WAITING * frames * (ms + ms_per_megapixel * megapixels) / 1000


def _sound_source(clip: Clip, video_has_sound: bool, warnings: list[str]) -> MediaSource | None:
    """The file whose sound is used: the clip's sound file, or else the video, or None if neither has sound.

    If the sound file cannot be used, a warning is stored. Raises ClipError if the sound file cannot be read and the
    video has no sound.
    """
    if clip.audio is not None:
        try:
            if probe(clip.audio).audio is not None:
                return clip.audio
        except ClipError:
            if not video_has_sound:
                raise
        warnings.append("sound-file-unreadable-video-track-used" if video_has_sound else "sound-file-without-sound")
    return clip.video if video_has_sound else None


# -- track and choose the speaker --------------------------------------------------------------------------------------


def track_clip(work: ClipWork, opened: OpenedClip) -> TrackedClip:
    """Tracks the face through the clip. If there are several people, chooses the person whose mouth fits the sound."""
    work.stages.enter("track")
    windows, thumbnails = FaceWindows(), Thumbnails()
    pictures = thumbnails.collect(work.pictures())
    sound = opened.samples if opened.sound is not None else None
    track = track_face(pictures, work.settings.fps, windows.add, sound, files=work.files)
    return TrackedClip(track, windows, thumbnails.stack() if len(track) else np.zeros((0, 0, 0), np.uint8))


def check_face(work: ClipWork, track: FaceTrack) -> None:
    """Raises ClipError if the clip is too short, or if too few of its frames have a face."""
    video, settings = work.clip.video, work.settings
    n_frames, n_valid = len(track), int(track.valid.sum())
    if n_frames < settings.min_frames:
        raise ClipError(
            Reason.TOO_SHORT,
            f"{video} has {n_frames} frames at {settings.fps:g}/s; {settings.min_frames} are needed",
        )
    if n_valid == 0:
        raise ClipError(Reason.NO_FACE, f"no face found in any of the {n_frames} frames of {video}")
    if n_valid < settings.min_valid_fraction * n_frames:
        raise ClipError(
            Reason.FEW_FACES,
            f"a face in {n_valid} of {n_frames} frames of {video}; "
            f"{settings.min_valid_fraction:.0%} of them must show one",
        )


# -- crop --------------------------------------------------------------------------------------------------------------


def place_crop(work: ClipWork, track: FaceTrack) -> Placement:
    """Computes the place of the crop in every frame, and the landmarks in crop pixels."""
    work.stages.enter("crop")
    mode = align_mode(work.settings.align)
    placed = _transforms(work, mode, track)
    stored = placed.astype(np.float32)
    smoothed = apply_transform(stored, smooth_landmarks(track.landmarks, track.valid))
    return Placement(mode, placed, stored, apply_transform(stored, track.landmarks), smoothed)


def _transforms(work: ClipWork, mode: AlignMode, track: FaceTrack) -> np.ndarray:
    """The transforms from source px to crop px: (T, 2, 3) float64.

    If the align mode uses dlib's points, dlib's face detector runs on every picture. In pictures without a detected
    face, MediaPipe's points are used, and a warning is stored.
    """
    settings = work.settings
    points, valid = track.landmarks, track.valid
    if mode.points == "dlib68":
        found = [find_dlib68(picture.rgb(), work.files) for picture in work.pictures()]
        points = np.stack([mesh if own is None else own for own, mesh in zip(found, to_68(points), strict=True)])
        if missed := sum(own is None and seen for own, seen in zip(found, track.valid, strict=True)):
            work.warnings.append(f"aligned-on-mediapipe-{missed}")
        valid = np.array([own is not None for own in found]) | track.valid
    return transforms(mode, points, valid, track.size, settings.size, settings.enlarge)


def encode_crops(work: ClipWork, tracked: TrackedClip, placement: Placement) -> EncodedCrops:
    """Crops the faces, encodes the crops and measures them, all in one pass over the pictures."""
    track = tracked.track
    cuts = quality.scene_cuts(tracked.thumbnails)
    doubtful = quality.doubtful_frames(track.landmarks, track.valid, cuts)
    figures = CropFigures(quality.identity_samples(track.valid, doubtful))
    frames = get_codec(work.settings.codec).encode(figures.collect(_crops(work, tracked, placement)))
    work.stages.enter("quality")
    distance = _identity_distance(work, figures, placement.landmarks)
    n_black = int(quality.black_frames(tracked.thumbnails).sum())
    sharpness, brightness = figures.medians()
    return EncodedCrops(frames, sharpness, brightness, n_black, cuts, distance)


def _crops(work: ClipWork, tracked: TrackedClip, placement: Placement) -> Iterator[np.ndarray]:
    """The clip's crops, each (size, size, 3) uint8 RGB, or (H, W, 3) if the mode keeps whole pictures.

    If the face windows were not kept, the clip is decoded again.
    """
    mode, settings = placement.mode, work.settings
    crops = tracked.windows.crops(mode, placement.transforms, tracked.track.size, settings.size)
    if crops is None:
        pairs = zip(work.pictures(), placement.transforms, strict=True)
        crops = (cut(mode, whole, transform, settings.size) for whole, transform in pairs)
    return crops


def _identity_distance(work: ClipWork, figures: CropFigures, landmarks: np.ndarray) -> float | None:
    """The largest distance between dlib's embeddings of two faces of the clip.

    None if no faces are compared (see `quality.identity_samples`). If dlib's network is missing, the result is None and
    a warning is stored.
    """
    if not figures.crops:
        return None
    try:
        placed = [landmarks[index] for index in figures.crops]
        return quality.identity_distance(list(figures.crops.values()), placed, work.files)
    except UserError:  # dlib's network is not installed
        work.warnings.append("identity-not-compared")
        return None


# -- audio and doubts --------------------------------------------------------------------------------------------------


def fit_audio(work: ClipWork, opened: OpenedClip, n_frames: int) -> FittedAudio:
    """Makes the sound as long as the video: removes samples or adds zeros at the end.

    If the lengths differ by more than 0.2 s, or if the sound is nearly silent, a warning is stored.
    """
    work.stages.enter("audio")
    wanted = round(n_frames / work.settings.fps * AUDIO_RATE)
    read = opened.samples()
    samples = np.zeros(0, np.int16) if read is None else read
    surplus = len(samples) - wanted
    if opened.sound is None:
        work.warnings.append("no-audio")
    elif abs(surplus) > _AUDIO_TOLERANCE:
        seconds = abs(surplus) / AUDIO_RATE
        work.warnings.append(f"audio-{'longer' if surplus > 0 else 'shorter'}-by-{seconds:.2f}s")
    fitted = np.zeros(wanted, np.int16)
    fitted[: min(wanted, len(samples))] = samples[:wanted]
    if opened.sound is not None and is_nearly_silent(fitted, AUDIO_RATE):
        work.warnings.append(f"nearly-silent-level-{level(fitted):.0f}")
    return FittedAudio(fitted, surplus if opened.sound is not None else None)


def note_doubts(work: ClipWork, track: FaceTrack, encoded: EncodedCrops) -> None:
    """Adds the warnings about the face and the pictures, such as missing faces, scene cuts and black frames."""
    if lacking := len(track) - int(track.valid.sum()):
        work.warnings.append(f"frames-without-face-{lacking}")
    if encoded.scene_cuts:
        work.warnings.append(f"scene-cuts-{len(encoded.scene_cuts)}")
    if encoded.black_frames:
        work.warnings.append(f"black-frames-{encoded.black_frames}")
    if encoded.identity_distance is not None and encoded.identity_distance > quality.SAME_PERSON:
        work.warnings.append(f"another-face-{encoded.identity_distance:.2f}")
    if track.choice.how == "largest":
        work.warnings.append(f"largest-of-{track.n_faces}-faces")


# -- record ------------------------------------------------------------------------------------------------------------


def make_record(
    work: ClipWork, opened: OpenedClip, track: FaceTrack, placed: Placement, encoded: EncodedCrops, audio: FittedAudio
) -> ClipRecord:
    """The record of a clip, with its digest."""
    clip, settings, video = work.clip, work.settings, opened.video
    separate = opened.sound if opened.sound != clip.video else None
    n_valid = int(track.valid.sum())
    record: ClipRecord = {
        "clip_id": clip.clip_id,
        "dataset": clip.dataset,
        "speaker": clip.speaker,
        "emotion": clip.emotion,
        "emotion_voted": clip.emotion_voted,
        "intensity": clip.intensity,
        "take": clip.take,
        "view": clip.view,
        "sentence_id": clip.sentence_id,
        "transcript": clip.transcript,
        "split": clip.split,
        "source": relative_path(clip.video, work.root),
        "audio_source": relative_path(separate, work.root) if separate is not None else None,
        "source_sha256": work.sha256,
        "source_width": video.width,
        "source_height": video.height,
        "source_fps": video.fps,
        "source_codec": video.codec,
        "source_pix_fmt": video.pix_fmt,
        "fps": settings.fps,
        "align": settings.align,
        "size": settings.size,
        "codec": settings.codec,
        "n_frames": len(track),
        "n_valid": n_valid,
        "valid_fraction": n_valid / len(track),
        "jitter": _jitter(track, placed),
        "audio_surplus": audio.surplus,
        "n_faces": track.n_faces,
        "face_choice": track.choice.how,
        "face_margin": track.choice.margin,
        "face_height": quality.face_height(track.landmarks, track.valid),
        "sharpness": encoded.sharpness,
        "brightness": encoded.brightness,
        "black_frames": encoded.black_frames,
        "scene_cuts": encoded.scene_cuts,
        "identity_distance": encoded.identity_distance,
        "warnings": work.warnings,
        "clip_digest": "",
        "column_checksums": [],
        "frames": encoded.frames,
        "landmarks": placed.landmarks,
        "landmarks_smoothed": placed.smoothed,
        "blendshapes": track.blendshapes,
        "valid": track.valid,
        "crop_transform": placed.stored,
        "audio": audio.samples,
    }
    set_digests(record)
    return record


def _jitter(track: FaceTrack, placement: Placement) -> float | None:
    """Tracking noise of the raw landmarks in crop pixels. None if the noise cannot be measured."""
    scale = float(np.median(np.linalg.norm(placement.transforms[:, :, 0], axis=1)))
    noise = jitter(track.landmarks, track.valid) * scale
    return None if math.isnan(noise) else noise
