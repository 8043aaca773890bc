"""Turns a video and its ground truth into two samples by named rules: rate, size, length, start and sound.

Every command that scores videos uses these rules, so that the same files give the same values. No rule is applied that
was not named: with the default rules, pictures are compared as they are stored, and what does not fit gets a reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from cmet_metrics.base import Metric, Sample, Settings, check_same_size
from cmet_metrics.frames import pair_frames
from talking_face.faces.crop import ENLARGE, crop_picture, stable_box
from talking_face.faces.track import track_face
from talking_face.media import (
    AUDIO_RATE,
    FPS,
    LIMITS,
    ArrayPicture,
    Limits,
    Sound,
    Video,
    file_start,
    read_sound,
    read_video,
)
from talking_face.media.ffmpeg_store import store_as_ffmpeg
from talking_face.media.sound import is_nearly_silent, level
from talking_face.pretrained.face_landmarker import landmarker_tag
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import ClipError, Reason
from talking_face.scratch import scratch_folder
from talking_face.signature import Signature

RateRule = Literal["as-is", "25", "ffmpeg-25", "ffmpeg-25-h264", "ffmpeg", "by-frame"]
SizeRule = Literal["as-is", "resize", "face-crop", "by-metric"]
LengthRule = Literal["exact", "shorter", "linspace"]
FACE_CROP_PX = 256  # side of the face crop
_BY_FFMPEG: tuple[RateRule, ...] = ("ffmpeg-25", "ffmpeg")
_SOUND_TOLERANCE_S = 0.2  # a larger difference between the lengths of sound and picture is noted
_RATES = {
    "25": "25-nearest",
    "ffmpeg-25": "25-ffmpeg-cfr",
    "ffmpeg-25-h264": "25-ffmpeg-cfr-x264-crf23",
    "ffmpeg": "own-ffmpeg-cfr",
}  # in signatures
_FRAMES_OF_RULE = {"shorter": "min", "linspace": "linspace"}  # rule of `pair_frames`


@dataclass(frozen=True)
class Treatment:
    """The rules by which a video and its ground truth become comparable. The signature of every score contains them.

    Attributes:
        rate: `as-is` keeps every stored frame; both files must have the same frame rate. `25` takes, for the time of
            each output frame at 25 frames/s, the nearest stored frame. `ffmpeg-25` takes the frames of the command
            `ffmpeg -i IN -r 25 OUT`, and `ffmpeg` those of the same command without `-r 25`, at the file's own rate:
            picture and sound then start with the earlier of the two, and FFmpeg's filter changes the rate of the
            sound. `ffmpeg-25-h264` takes the pictures of the file that `ffmpeg -i IN -r 25 OUT.mp4` writes, which H.264
            has changed; the sound is that of IN. `by-frame` keeps every stored frame, and does not compare the rates:
            frame k belongs to frame k.
        size: `as-is` compares frames of equal size only. `resize` scales the generated frames to the size of the ground
            truth: by averaging if they become smaller, by cubic interpolation if they become larger. `face-crop` crops
            the face out of each of the two videos, with one square per video, to 256x256 px. This hides a wrong
            position of the face. `by-metric` does not compare the sizes: each metric crops or scales the frames itself,
            as its signature says, or refuses frames of different sizes.
        length: `exact` leaves both videos as long as they are, and a metric refuses lengths that do not fit its own
            rule. `shorter` cuts both to the length of the shorter one. `linspace` samples both evenly to the length of
            the shorter one.
        start: index of the ground truth's frame that belongs to frame 0 of the generated video.
    """

    rate: RateRule = "as-is"
    size: SizeRule = "as-is"
    length: LengthRule = "exact"
    start: int = 0

    def fields(self, metric: Metric) -> Settings:
        """The fields that the rules add to the signature of a metric.

        Rules that change only the comparison with a ground truth are left out for a metric without ground truth.
        """
        crop = f"face-box-{ENLARGE:g}-{FACE_CROP_PX}@{landmarker_tag()}"
        size = {"resize": "to-target-area-cubic", "face-crop": crop}.get(self.size, self.size)
        rate: Settings = {"rate": _RATES.get(self.rate, self.rate)}
        if metric.needs_audio and self.rate in _BY_FFMPEG:
            rate = {**rate, "resampled": "libswresample"}
        if metric.needs_target:
            return {**rate, "size": size, "length": self.length, "start": self.start}
        return {**rate, "size": size} if self.size == "face-crop" else rate

    def signature(self, metric: Metric) -> str:
        """The signature of a metric's scores under these rules; the rules precede the version."""
        own = metric.signature()
        before = {key: value for key, value in own.fields.items() if key != "version"}
        return str(Signature(own.name, {**before, **self.fields(metric), "version": own.fields["version"]}))


def read_clip(path: Path, rate: RateRule, notes: list[str], *, limits: Limits = LIMITS, sound: bool = True) -> Sample:
    """The frames and the sound of a video file.

    Args:
        path: the file, in any container.
        rate: the rule for the frame rate; see `Treatment`.
        notes: what was noticed is added to this list: a changed rate, which of several tracks is used, strange sound.
        sound: whether the sound is read. A video without sound gives a sample without sound.

    Raises:
        ClipError: the file cannot be read; see `talking_face.media.read_frames` and `read_sound`.
    """
    video = _read(path, rate, limits, notes)
    notes += video.notes
    clip = Sample(video.frames, fps=video.fps, name=path.name)
    if not sound:
        return clip
    try:
        heard = read_track(path, rate, limits)
    except ClipError as error:
        if error.reason is Reason.NO_AUDIO:
            return clip
        raise
    return with_sound(clip, heard, notes)


def _read(path: Path, rate: RateRule, limits: Limits, notes: list[str]) -> Video:
    if rate == "ffmpeg-25-h264":
        notes.append("stored as H.264, as by ffmpeg -r 25, before it is scored")
        with scratch_folder() as folder:
            copy = folder / path.with_suffix(".mp4").name
            store_as_ffmpeg(path, copy, int(FPS), limits)
            return read_video(copy, FPS, limits)
    fps = FPS if rate in ("25", "ffmpeg-25") else None
    return read_video(path, fps, limits, "ffmpeg" if rate in _BY_FFMPEG else "nearest")


def read_track(path: Path, rate: RateRule, limits: Limits = LIMITS) -> Sound:
    """The sound of a file. Sample 0 belongs to frame 0 of `read_clip`. Raises ClipError; see `read_sound`."""
    if rate in _BY_FFMPEG:
        return read_sound(path, start=file_start(path, limits), limits=limits, choice="ffmpeg")
    start = file_start(path, limits) if rate == "ffmpeg-25-h264" else None
    return read_sound(path, start=start, limits=limits)


def with_sound(clip: Sample, sound: Sound, notes: list[str]) -> Sample:
    """The sample with this sound. Doubts about the sound are added to `notes`."""
    notes += sound.notes
    surplus = len(sound.samples) / AUDIO_RATE - len(clip.frames) / clip.fps
    if abs(surplus) > _SOUND_TOLERANCE_S:
        notes.append(f"sound {abs(surplus):.2f} s {'longer' if surplus > 0 else 'shorter'} than the picture")
    if is_nearly_silent(sound.samples, AUDIO_RATE):
        notes.append(f"nearly silent, level {level(sound.samples):.0f} of 32768")
    return replace(clip, audio=sound.samples)


def with_spare_sound(clip: Sample, sound: Sound, origin: str, notes: list[str]) -> Sample:
    """A sample without own sound, with the sound of another file; a note states its `origin`.

    The sound gets the length of the pictures: samples are removed, or zeros are added, at the end. So it does not
    matter whether the other file is a video or a clip of a shard set, whose sound ends with its pictures.
    """
    notes.append(f"sound of the {origin}")
    samples = np.zeros(round(len(clip.frames) / clip.fps * AUDIO_RATE), np.int16)
    n = min(len(samples), len(sound.samples))
    samples[:n] = sound.samples[:n]
    return with_sound(clip, Sound(samples, sound.notes), notes)


def cropped(clip: Sample, files: ModelFiles) -> Sample:
    """The sample with the face cropped out of every frame, 256x256 px, with one square for the whole clip.

    The square is the one of preprocessing's align mode `box`.

    Raises:
        ClipError: no-face.
    """
    pictures = [ArrayPicture(frame) for frame in clip.frames]
    track = track_face(pictures, clip.fps, files=files)
    if not track.valid.any():
        raise ClipError(Reason.NO_FACE, f"no face found in any of the {len(pictures)} frames of {clip.name}")
    box = stable_box(track.landmarks, track.valid, picture=track.size)
    return replace(clip, frames=np.stack([crop_picture(one, box, FACE_CROP_PX) for one in pictures]), _cache={})


def paired(pred: Sample, target: Sample, rules: Treatment) -> tuple[Sample, Sample]:
    """The two samples that are compared, after the rules start, size and length. Unchanged samples are returned as is.

    The face crop is not applied here, because it also changes the pictures of metrics without ground truth.

    Raises:
        ClipError: too-short if the ground truth ends before the start; size-mismatch if the sizes differ and no rule
            makes them equal, except under `by-metric` also for metrics that crop the frames themselves.
    """
    if rules.rate == "by-frame":
        target = replace(target, fps=pred.fps)
    target = _from_frame(target, rules.start)
    if rules.size not in ("resize", "by-metric"):
        check_same_size(pred, target)
    if rules.size == "resize" and pred.frames.shape[1:3] != target.frames.shape[1:3]:
        pred = _changed(pred, resized(pred.frames, target.frames.shape[1:3]))
    if rules.length != "exact" and len(pred.frames) != len(target.frames):
        i, j = pair_frames(len(pred.frames), len(target.frames), _FRAMES_OF_RULE[rules.length])  # type: ignore[arg-type]
        pred, target = _taken(pred, i), _taken(target, j)
    return pred, target


def resized(frames: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """(T, H, W, 3) uint8 frames, scaled to `size` (height, width): averaged if smaller, else by cubic interpolation."""
    height, width = size
    smaller = height * width < frames.shape[1] * frames.shape[2]
    how = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return np.stack([cv2.resize(frame, (width, height), interpolation=how) for frame in frames])


def _from_frame(clip: Sample, start: int) -> Sample:
    if not start:
        return clip
    if start >= len(clip.frames):
        raise ClipError(Reason.TOO_SHORT, f"{clip.name} has {len(clip.frames)} frames and no frame {start}")
    first = round(start / clip.fps * AUDIO_RATE)
    sound = None if clip.audio is None else clip.audio[first:]
    return _changed(replace(clip, audio=sound), clip.frames[start:])


def _taken(clip: Sample, indices: Sequence[int] | np.ndarray) -> Sample:
    same = len(indices) == len(clip.frames)
    return clip if same else _changed(clip, clip.frames[indices])


def _changed(clip: Sample, frames: np.ndarray) -> Sample:
    """The sample with other frames, and without the results that were computed from its own frames."""
    return replace(clip, frames=frames, _cache={})
