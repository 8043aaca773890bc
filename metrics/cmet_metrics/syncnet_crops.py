"""Crops the face for lip-sync networks. The scale of LSE-C and LSE-D depends on the crop.

Sources: joonson/syncnet_python at 1fbfc08, run_pipeline.py, and bytedance/LatentSync at a229c39,
eval/syncnet_detect.py (`track`); Rudrabha/Wav2Lip at 3048445, evaluation/scores_LSE/SyncNetInstance_calc_scores.py
(`crop`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from cmet_metrics.base import Sample
from cmet_metrics.landmarks import mediapipe_landmarks, need_faces
from cmet_metrics.pictures import check_uint8
from cmet_metrics.scene_cuts import Scenes, find_scenes
from talking_face.faces.align import align_mode, cut, transforms
from talking_face.media.picture import ArrayPicture
from talking_face.pretrained import evaluator_networks
from talking_face.pretrained.dlib_models import Box
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.s3fd import detect_faces_s3fd
from talking_face.reasons import ClipError, Reason

SIZE = 224  # px
MIN_VALID = 0.5  # minimum share of frames with a face; the crops of the other frames are interpolated
# The values of the original pipeline, except MIN_TRACK. The original needs a track of more than 100 frames (4 s), and
# LatentSync of more than 50, but most clips of CREMA-D and many clips of MEAD are shorter than 4 s.
MIN_TRACK, MAX_MISSED, MIN_FACE_PX, MIN_IOU = 5, 25, 100, 0.5


@dataclass(frozen=True)
class LipCrops:
    """The crops of a face in K consecutive frames of a clip; the first frame has the index `start`."""

    crops: np.ndarray  # (K, 224, 224, 3) uint8 RGB; from `corpus_mouths` (K, 96, 96) uint8 grey
    start: int = 0


def whole_frame(sample: Sample, _files: ModelFiles) -> LipCrops:
    """The whole frame, resized to 224 x 224 by bilinear interpolation without keeping the aspect ratio.

    Wav2Lip's script does this for clips that are already face crops.
    """
    return LipCrops(np.stack([cv2.resize(frame, (SIZE, SIZE)) for frame in sample.pictures]))


def from_landmarks(sample: Sample, files: ModelFiles) -> LipCrops:
    """The crop of `from_track`, but with the bounding box of MediaPipe's points instead of S3FD's box.

    Raises ClipError with reason no-face or few-faces.
    """
    points = mediapipe_landmarks(sample, files)[..., :2]
    valid = np.isfinite(points).all(axis=(1, 2))
    if not valid.any():
        raise ClipError(Reason.NO_FACE, f"{sample.name}: no face in any of {len(valid)} frames")
    if valid.mean() < MIN_VALID:
        raise ClipError(Reason.FEW_FACES, f"{sample.name}: a face in {valid.sum()} of {len(valid)} frames")
    return LipCrops(_cut(sample.pictures, points, valid))


def from_tracks(
    sample: Sample, files: ModelFiles, *, min_track: int = MIN_TRACK, scenes: Scenes = "one", longest: bool = True
) -> list[LipCrops]:
    """The original pipeline's crops around tracks of S3FD's face boxes.

    Frames before and after a track are left out, as in the original.

    Args:
        min_track: a track needs more boxes than this, and a scene at least as many frames.
        scenes: how the clip is divided into scenes. A track ends with its scene.
        longest: whether only the longest track is cropped. Among equally long tracks, it is the first track.

    Raises ClipError with reason no-face, or MissingWeights.
    """
    boxes = sample.cached("s3fd-boxes", lambda s: [detect_faces_s3fd(frame, files) for frame in s.pictures])
    tracks = [
        {first + t: box for t, box in track.items()}
        for first, stop in find_scenes(sample.pictures, scenes)
        if stop - first >= min_track
        for track in join_boxes(boxes[first:stop], min_track)
    ]
    if not tracks:
        raise ClipError(
            Reason.NO_FACE,
            f"{sample.name}: S3FD found no face over {MIN_FACE_PX} px in more than {min_track} frames of a scene",
        )
    chosen = [max(tracks, key=len)] if longest else tracks
    return [crop_track(sample.pictures, track) for track in chosen]


def corpus_mouths(sample: Sample, files: ModelFiles) -> LipCrops:
    """The grey mouth crops of the network trained on the corpus. Raises ClipError with reason no-face or few-faces."""
    points = mediapipe_landmarks(sample, files)
    need_faces(sample.name, np.isfinite(points).all(axis=(1, 2)), MIN_VALID)
    return LipCrops(evaluator_networks.mouth_crops(sample.pictures, points))


Track = dict[int, Box]  # {index of the frame: box of the face}, sorted by index


def join_boxes(boxes: Sequence[Sequence[Box]], min_track: int = MIN_TRACK) -> list[Track]:
    """Join the boxes of all frames into tracks of one face each, as `track_shot` of the original does.

    A box is added to a track if the last box of the track is at most 25 frames old and the intersection over union of
    the two boxes is more than 0.5. A track is returned only if it has more than `min_track` boxes and the longer side
    of its mean box is more than 100 px.
    """
    left = [list(faces) for faces in boxes]
    out: list[Track] = []
    while any(left):
        track: Track = {}
        last = -1
        for t, faces in enumerate(left):
            if track and t - last > MAX_MISSED:
                break
            match = next((box for box in faces if not track or _iou(box, track[last]) > MIN_IOU), None)
            if match is not None:
                faces.remove(match)
                track[t] = match
                last = t
        if len(track) > min_track and _side(track) > MIN_FACE_PX:
            out.append(track)
    return out


def crop_track(frames: np.ndarray, track: Track) -> LipCrops:
    """The 224 px crops from the first to the last frame of a track; boxes between detections are interpolated.

    Let b be half of the longer side of the box. A median filter over 13 frames smooths b and the centre of the box. The
    crop extends from b above the centre to 1.8 b below it, and 1.4 b to each side, in whole pixels. Its parts outside
    the picture are grey (110).

    Raises TypeError or ValueError unless `frames` is (T, H, W, 3) uint8 with a frame for each box.
    """
    check_uint8(frames, "frames")
    if not track or not 0 <= min(track) <= max(track) < len(frames):
        raise ValueError(f"the track has frames {sorted(track)[:1]} to {sorted(track)[-1:]} of {len(frames)}")
    start, stop = min(track), max(track) + 1
    corners = np.full((stop - start, 2, 2), np.nan)
    for t, box in track.items():
        corners[t - start] = (box.left, box.top), (box.right, box.bottom)
    return LipCrops(_cut(frames[start:stop], corners, np.isfinite(corners).all(axis=(1, 2))), start)


def _cut(frames: np.ndarray, points: np.ndarray, valid: np.ndarray) -> np.ndarray:
    mode = align_mode("syncnet-224")
    places = transforms(mode, points, valid, frames.shape[1:3], SIZE, 1.0)
    return np.stack([cut(mode, ArrayPicture(f), place, SIZE) for f, place in zip(frames, places, strict=True)])


def _iou(a: Box, b: Box) -> float:
    wide = max(0.0, min(a.right, b.right) - max(a.left, b.left))
    high = max(0.0, min(a.bottom, b.bottom) - max(a.top, b.top))
    return wide * high / (a.width * a.height + b.width * b.height - wide * high)


def _side(track: Track) -> float:
    """The longer side of the track's mean box; the mean is over all frames from the first to the last, interpolated."""
    frames = np.arange(min(track), max(track) + 1)
    sides = ([getattr(box, name) for box in track.values()] for name in ("width", "height"))
    return max(float(np.interp(frames, list(track), values).mean()) for values in sides)
