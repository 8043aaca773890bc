"""Defines the methods without a network: ceiling, floors and controls. Boards compare other methods with them."""

from __future__ import annotations

import numpy as np

from cmet_baselines.method import Case
from cmet_reference.geometry import fit_pose, template_of, to_head, to_picture
from cmet_reference.render import mesh
from talking_face.pretrained.mfcc import mfcc


class GroundTruth:
    """The real clip: a ceiling.

    The clip is written to the same video format as the output of every method and read again before scoring. Therefore
    its scores are the best scores that this format allows.
    """

    name = "ground-truth"
    revision = "1"
    sees = frozenset({"ground-truth"})

    def generate(self, case: Case) -> np.ndarray:
        return case.ground_truth_frames


class StaticReference:
    """The first reference frame, repeated for the length of the driving audio: a floor, a video without motion."""

    name = "static-reference"
    revision = "1"
    sees = frozenset({"reference-frames"})

    def generate(self, case: Case) -> np.ndarray:
        frame = case.reference_frames[0]
        return np.broadcast_to(frame, (case.n_frames, *frame.shape))


class SourceVideo:
    """The source clip without changes: a floor, with the correct person but another sentence and emotion."""

    name = "source-video"
    revision = "1"
    sees = frozenset({"source-video"})

    def generate(self, case: Case) -> np.ndarray:
        return fit_length(case.source_frames, case)


class ShuffledAudio:
    """Another real clip of the speaker, with the target emotion but another sentence: a control for lip sync.

    The face and the emotion are correct, but the lips do not follow the driving sound.
    """

    name = "shuffled-audio"
    revision = "1"
    sees = frozenset({"ground-truth"})

    def generate(self, case: Case) -> np.ndarray:
        return fit_length(case.other_take_frames, case)


class GroundTruthLips:
    """The lips and the jaw of the real clip on the face of the source video, drawn by the mesh renderer.

    Its scores are the best scores for a method that has perfect lips but does not change the upper face.
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
        # The share of each point that comes from the real clip: 1 below the upper lip, 0 above the tip of the nose.
        nose, lip = template[4, 1], template[0, 1]
        share = np.clip((template[:, 1] - nose) / (lip - nose), 0, 1)[:, None]
        landmarks = to_picture(own + share * (copied - own), pose)
        frames = fit_length(case.source_frames, case)
        return mesh.MeshRenderer().frames(landmarks, case.reference_frames, case.reference_landmarks, frames, base)


class Retrieval:
    """The training clip whose sound is most similar to the driving sound, among clips with the target emotion.

    The clip is not changed. It shows another person, with the correct emotion but another sentence.
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
    """The training clip whose sound is most similar, among clips of all emotions.

    This method does not use the emotion label, so only the sound can lead to a clip with the target emotion.
    """

    name = "retrieval-by-sound"
    revision = "1"
    sees = frozenset({"driving-audio", "training-split"})

    def _allowed(self, case: Case) -> np.ndarray:
        return np.ones(len(case.training_emotions), bool)


def sound_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean distance between rows of two cepstra (sound features), (N, 13) and (M, 13); `b` is resampled to N rows."""
    rows = np.round(np.linspace(0, len(b) - 1, len(a))).astype(int)
    return float(np.linalg.norm(a - b[rows], axis=1).mean())


def fit_length(frames: np.ndarray, case: Case, rule: str = "cut-or-hold-last") -> np.ndarray:
    """Change a video to the length that the case requires. If the length changes, add a note to the case.

    Args:
        frames: (T, H, W, 3).
        case: states the required length. The note is added to this case.
        rule: `cut-or-hold-last` removes frames at the end or repeats the last frame; `as-is` keeps the length.

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
    """The first `n` frames. A shorter video is extended with its last frame. (T, ...) -> (n, ...), T >= 1, n >= 1."""
    indices = np.minimum(np.arange(n), len(frames) - 1)
    return frames[: len(indices)] if len(frames) >= n else frames[indices]
