"""Methods without a network: the ceiling, the floors and the controls that a board compares real methods with."""

from __future__ import annotations

import numpy as np

from cmet_baselines.method import Case
from cmet_reference.geometry import fit_pose, template_of, to_head, to_picture
from cmet_reference.render import mesh
from talking_face.pretrained.mfcc import mfcc


class GroundTruth:
    """The real clip: the ceiling.

    It is written to and read from the same file format as the output of any method, so its scores are the best scores
    that this format allows.
    """

    name = "ground-truth"
    revision = "1"
    sees = frozenset({"ground-truth"})

    def generate(self, case: Case) -> np.ndarray:
        return case.ground_truth_frames


class StaticReference:
    """The first reference frame, repeated for the length of the driving audio: a floor for videos without motion."""

    name = "static-reference"
    revision = "1"
    sees = frozenset({"reference-frames"})

    def generate(self, case: Case) -> np.ndarray:
        frame = case.reference_frames[0]
        return np.broadcast_to(frame, (case.n_frames, *frame.shape))


class SourceVideo:
    """The source clip, unedited: a floor for the right person with another sentence and emotion."""

    name = "source-video"
    revision = "1"
    sees = frozenset({"source-video"})

    def generate(self, case: Case) -> np.ndarray:
        return fit_length(case.source_frames, case)


class ShuffledAudio:
    """The speaker's real clip of another sentence in the target emotion: a control for lip sync.

    Face and emotion are right, and the lips do not follow the driving sound.
    """

    name = "shuffled-audio"
    revision = "1"
    sees = frozenset({"ground-truth"})

    def generate(self, case: Case) -> np.ndarray:
        return fit_length(case.other_take_frames, case)


class GroundTruthLips:
    """The real clip's lips and jaw on the source video's face, drawn by the mesh renderer.

    It shows what a perfect lip model can reach that does not change the upper face.
    """

    name = "ground-truth-lips"
    revision = f"1+{mesh.REVISION}"
    sees = frozenset({"ground-truth", "reference-frames", "source-video"})

    def generate(self, case: Case) -> np.ndarray:
        base = cut_or_hold_last(case.source_landmarks, case.n_frames)
        real = cut_or_hold_last(case.ground_truth_landmarks, case.n_frames)
        template = template_of(case.reference_landmarks)
        pose = fit_pose(base, template)
        own, copied = to_head(base, pose), to_head(real, fit_pose(real, template))
        # The share of the real motion: 1 below the upper lip, 0 above the tip of the nose.
        nose, lip = template[4, 1], template[0, 1]
        share = np.clip((template[:, 1] - nose) / (lip - nose), 0, 1)[:, None]
        landmarks = to_picture(own + share * (copied - own), pose)
        frames = fit_length(case.source_frames, case)
        return mesh.MeshRenderer().frames(landmarks, case.reference_frames, case.reference_landmarks, frames, base)


class Retrieval:
    """The training clip in the target emotion with the nearest sound, unedited.

    It shows another person with the right emotion and another sentence.
    """

    name = "retrieval"
    revision = "1"
    sees = frozenset({"driving-audio", "emotion-label", "training-split"})

    def generate(self, case: Case) -> np.ndarray:
        allowed = np.flatnonzero(self._allowed(case))
        if not len(allowed):
            raise ValueError("no clip of the training split shows the target emotion")
        wanted = mfcc(case.driving_audio)
        distances = [sound_distance(wanted, mfcc(case.training_audio[i])) for i in allowed]
        return fit_length(case.training_frames(int(allowed[int(np.argmin(distances))])), case)

    def _allowed(self, case: Case) -> np.ndarray:
        return np.asarray(case.training_emotions == case.target_emotion)


class RetrievalBySound(Retrieval):
    """The training clip of any emotion with the nearest sound: the emotion must be in the sound."""

    name = "retrieval-by-sound"
    revision = "1"
    sees = frozenset({"driving-audio", "training-split"})

    def _allowed(self, case: Case) -> np.ndarray:
        return np.ones(len(case.training_emotions), bool)


def sound_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean distance between the rows of two cepstra, (N, 13) and (M, 13); the second is stretched to N rows."""
    rows = np.round(np.linspace(0, len(b) - 1, len(a))).astype(int)
    return float(np.linalg.norm(a - b[rows], axis=1).mean())


def fit_length(frames: np.ndarray, case: Case, rule: str = "cut-or-hold-last") -> np.ndarray:
    """The video in the case's length, with a note where the length changed.

    Args:
        frames: (T, H, W, 3).
        case: gives the length, and receives the note.
        rule: `cut-or-hold-last`, or `as-is`, which keeps the length.

    Returns:
        (n_frames, H, W, 3); with `as-is`, the same video.
    """
    if rule == "as-is" or len(frames) == case.n_frames:
        return frames
    if len(frames) > case.n_frames:
        case.note(f"cut-or-hold-last: cut from {len(frames)} to {case.n_frames} frames")
    else:
        case.note(f"cut-or-hold-last: last of {len(frames)} frames held to {case.n_frames}")
    return cut_or_hold_last(frames, case.n_frames)


def cut_or_hold_last(frames: np.ndarray, n: int) -> np.ndarray:
    """The first `n` frames; a shorter array repeats its last frame. (T, ...) -> (n, ...), T >= 1, n >= 1."""
    indices = np.minimum(np.arange(n), len(frames) - 1)
    return frames[: len(indices)] if len(frames) >= n else frames[indices]
