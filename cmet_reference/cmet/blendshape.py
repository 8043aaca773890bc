"""The default face codec encodes MediaPipe's 52 coefficients of an expression as ten numbers, and decodes landmarks.

The ten numbers are called a code. An expression lasts longer than sounds and blinks. Therefore the coefficients are
averaged over two seconds before they are projected to a code. A code gives a slow displacement of the landmarks. The
network Audio2Mouth gives the motion of the lips, as a displacement from the mean position of the lips. The two
displacements are added.

`python -m cmet_reference.cmet.blendshape DATA` fits the codec and prints the share of variance that the codec explains
on held-out speakers.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from cmet_reference.cem_net.audio2mouth import POINTS, Audio2Mouth
from cmet_reference.cem_net.data import mean_face
from cmet_reference.clips import ClipArrays, read_clips
from cmet_reference.cmet.codec import Face, held
from cmet_reference.geometry import Pose, fit_pose, to_head, to_picture
from cmet_reference.render.base import Renderer
from talking_face.reasons import UserError

SLOW = 51  # frames (2 s) in the mean; 25 and 101 explain less variance of held-out landmarks
RIDGE = 0.1  # penalty relative to the mean variance of a predictor; 0.001 to 0.1 change the held-out R2 by 0.02
SPEECH_SIZE = 12  # number of principal components of the motion of lips and jaw; they predict the skin
_NOSE_TIP, _PHILTRUM, _CHIN = 4, 164, 152

REGIONS: Mapping[str, tuple[int, ...]] = {
    "face": tuple(range(468)),
    "brows": (70, 63, 105, 66, 107, 336, 296, 334, 293, 300),
    "eyelids": (159, 145, 386, 374),
    "lips": (61, 291, 0, 17, 13, 14, 37, 267, 84, 314),
    "jaw": (152, 148, 377, 176, 400),
}


@dataclass(frozen=True)
class BlendshapeModel:
    """The float32 arrays of the fitted codec. The names of the arrays are stored in checkpoints."""

    template: np.ndarray  # (478, 3) mean face in the head's frame
    centre: np.ndarray  # (52,) coefficients of a face whose code is zero
    to_code: np.ndarray  # (52, C) projection of coefficients to a code
    to_points: np.ndarray  # (C, 478, 3) displacement of the landmarks per unit of the code, in eye distances
    speech: np.ndarray  # (57 * 3, K) principal motions of lips and jaw
    speech_to_points: np.ndarray  # (K, 478, 3) displacement of the face per unit of each principal motion

    @property
    def size(self) -> int:
        return self.to_code.shape[1]

    def codes(self, blendshapes: np.ndarray) -> np.ndarray:
        """Encodes (T, 52) coefficients as (T, C) float32. Each code describes the two seconds around its frame."""
        return ((slow(blendshapes) - self.centre) @ self.to_code).astype(np.float32)

    def displaced(self, codes: np.ndarray) -> np.ndarray:
        """Converts differences of codes, (T, C), to displacements in the head's frame, (T, 478, 3)."""
        return np.tensordot(codes, self.to_points, axes=1).astype(np.float32)

    def upper(self) -> np.ndarray:
        """The weight of each point, (478,): 1 for points that speech does not move, 0 for points that speech moves.

        The weight is 1 above the tip of the nose and 0 below the philtrum. It changes linearly between these two
        heights.
        """
        y = self.template[:, 1]
        return np.clip((y[_PHILTRUM] - y) / (y[_PHILTRUM] - y[_NOSE_TIP]), 0, 1).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name, for a checkpoint. `BlendshapeModel(**arrays)` creates the model again."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def slow(track: np.ndarray, width: int = SLOW) -> np.ndarray:
    """Replaces each frame of (T, ...) by the mean of the `width` frames around this frame; near the ends, of fewer."""
    n = len(track)
    total = np.concatenate([np.zeros((1, *track.shape[1:])), np.cumsum(track, axis=0, dtype=np.float64)])
    at = np.arange(n)
    first, last = np.maximum(at - width // 2, 0), np.minimum(at + width // 2 + 1, n)
    return ((total[last] - total[first]) / (last - first).reshape(-1, *[1] * (track.ndim - 1))).astype(np.float32)


def fit_model(clips: Sequence[ClipArrays], size: int = 10) -> BlendshapeModel:
    """Fits the codec to a training split.

    Codes are principal components of the mean coefficients of the clips. Neither speaker nor content should become a
    component. Therefore the neutral mean of the speaker is subtracted first, and the mean over a clip removes the
    content. Coefficients are also divided by the square root of their standard deviation (Pareto scaling). Without this
    scaling, the small coefficients of brows and nose would have no effect. If coefficients were divided by the standard
    deviation itself, coefficients that hardly change would have too much effect. Codes are scaled to a mean variance of
    1, which is the unit of the losses.

    A ridge regression predicts landmarks from codes. For this regression, landmarks and codes are averaged over two
    seconds and are relative to the speaker's neutral mean.

    Args:
        size: C, the number of components.

    Raises:
        UserError: the number of clips is not greater than `size`.
    """
    if len(clips) <= size:
        raise UserError(f"{len(clips)} clips of the training split are too few for {size} expression components")
    template = mean_face(clips)
    heads = [to_head(c.landmarks, fit_pose(c.landmarks, template)) for c in clips]
    means = np.stack([c.blendshapes.mean(axis=0) for c in clips])
    from_rest = means - _rests(clips, means)
    scale = np.sqrt(from_rest.std(axis=0) + 0.005)
    components = np.linalg.svd((from_rest - from_rest.mean(axis=0)) / scale, full_matrices=False)[2][:size]
    to_code = components.T / scale[:, None]
    to_code /= np.sqrt((from_rest @ to_code).var(axis=0).mean())
    centre = means.mean(axis=0)

    codes, points = _from_rest(clips, heads, lambda c: (slow(c.blendshapes) - centre) @ to_code)
    to_points = _ridge(codes, points.reshape(len(points), -1)).reshape(size, 478, 3)

    fast = np.concatenate([h[::2] - h.mean(axis=0) for h in heads])
    mouths = fast[:, POINTS].reshape(len(fast), -1)
    speech = np.linalg.svd(mouths.T @ mouths)[0][:, :SPEECH_SIZE]
    follow = _ridge(mouths @ speech, fast.reshape(len(fast), -1), 1e-3).reshape(SPEECH_SIZE, 478, 3)
    arrays = (template, centre, to_code, to_points, speech, follow)
    return BlendshapeModel(*(np.ascontiguousarray(a, np.float32) for a in arrays))


def explained(model: BlendshapeModel, clips: Sequence[ClipArrays]) -> dict[str, float]:
    """The share of the landmarks' slow motion that the codes explain, for each region of the face.

    R2 = 1 - sum |true - predicted|^2 / sum |true|^2 over clips, frames and coordinates. The displacements are relative
    to the speaker's neutral mean. Therefore a codec that always predicts this mean has R2 = 0.
    """
    heads = [to_head(c.landmarks, fit_pose(c.landmarks, model.template)) for c in clips]
    codes, points = _from_rest(clips, heads, lambda c: model.codes(c.blendshapes))
    error = (points - model.displaced(codes)) ** 2
    return {
        name: float(1 - error[:, index].sum() / (points[:, index] ** 2).sum())
        for name, index in ((name, list(index)) for name, index in REGIONS.items())
    }


def _from_rest(
    clips: Sequence[ClipArrays], heads: Sequence[np.ndarray], coded: Callable[[ClipArrays], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Slow codes (R, C) and slow points (R, 478, 3) of every fifth frame, minus the speaker's neutral mean.

    Args:
        heads: (T, 478, 3) of each clip, in the head's frame.
        coded: computes the slow codes of a clip.
    """
    codes = [coded(c)[::5] for c in clips]
    points = [slow(h)[::5] for h in heads]
    rest_codes = _rests(clips, np.stack([c.mean(axis=0) for c in codes]))
    rest_points = _rests(clips, np.stack([p.mean(axis=0) for p in points]))
    return (
        np.concatenate([c - r for c, r in zip(codes, rest_codes, strict=True)]),
        np.concatenate([p - r for p, r in zip(points, rest_points, strict=True)]),
    )


def _rests(clips: Sequence[ClipArrays], means: np.ndarray) -> np.ndarray:
    """The neutral mean of each clip's speaker, (N, ...), from the means of the clips, (N, ...).

    If a speaker has no neutral clip, the mean of all clips of that speaker is returned instead.
    """
    out = np.empty_like(means)
    for speaker in {c.speaker for c in clips}:
        own = [i for i, c in enumerate(clips) if c.speaker == speaker]
        neutral = [i for i in own if clips[i].emotion == "neutral"]
        out[own] = means[neutral or own].mean(axis=0)
    return out


def _ridge(x: np.ndarray, y: np.ndarray, penalty: float = RIDGE) -> np.ndarray:
    """The (A, B) coefficients of a ridge regression that predicts y, (N, B), from x, (N, A)."""
    square = x.T @ x
    return np.linalg.solve(square + penalty * np.trace(square) / len(square) * np.eye(len(square)), x.T @ y)


class BlendshapeCodec:
    """The codec: the fitted model, Audio2Mouth for lips, and a renderer for pictures. Implements `FaceCodec`."""

    name = "blendshape"
    revision = ""

    def __init__(
        self, model: BlendshapeModel, mouth: Audio2Mouth | None = None, renderer: Renderer | None = None
    ) -> None:
        self.model, self.mouth, self.renderer = model, mouth, renderer
        self.size = model.size

    def encode(self, face: Face) -> np.ndarray:
        return self.model.codes(face.need("blendshapes", "the blendshape codec"))

    def lips(self, audio: np.ndarray, identity: Face, frames: int) -> np.ndarray:
        """The lip motion, (frames, 57, 3): displacements of Audio2Mouth's points from their mean in `identity`.

        The displacements are in the head's frame.
        """
        if self.mouth is None:
            raise UserError("lips need Audio2Mouth: run `cmet-eval train cem-net --data SHARDS --stage audio2mouth`")
        template = self.mouth.template.cpu().numpy()
        landmarks = identity.need("landmarks", "Audio2Mouth")
        known = to_head(landmarks, fit_pose(landmarks, template))
        take = np.linspace(0, len(known) - 1, self.mouth.settings.references).round().astype(int)
        # Audio2Mouth also reads the upper face. Here it gets the same mean face in every frame, so that only speech
        # moves the mouth.
        held_still = np.repeat(known.mean(axis=0, keepdims=True), frames, axis=0)
        return self.mouth.mouth(audio, known, held_still, frames) - known[take][:, POINTS].mean(axis=0)

    def points(self, identity: Face, lips: np.ndarray, pose: Face, codes: np.ndarray) -> np.ndarray:
        """The face's landmarks: (T, 478, 3) px of the picture of `pose`.

        The face is the sum of four parts. The first part is the mean face of `identity`. The second part is the
        displacement of the codes. The third part is the motion of the lips and of the skin around the lips. The fourth
        part is the fast motion of the upper face (blinks, gaze) in the video of `pose`.
        """
        n, model = len(lips), self.model
        landmarks = identity.need("landmarks", self.name)
        rest = to_head(landmarks, fit_pose(landmarks, model.template)).mean(axis=0)
        own = self.encode(identity).mean(axis=0)
        out = rest + model.displaced(held(codes, n) - own)

        driven = pose.need("landmarks", self.name)
        at = fit_pose(driven, model.template)
        moving = to_head(driven, at)
        upper = model.upper()[:, None]
        out += upper * held(moving - slow(moving), n)

        follow = np.tensordot(lips.reshape(n, -1) @ model.speech, model.speech_to_points, axes=1)
        follow *= 1 - upper
        follow[:, POINTS] = lips
        return to_picture(out + follow, Pose(held(at.scale, n), held(at.rotation, n), held(at.shift, n)))

    def decode(self, identity: Face, lips: np.ndarray, pose: Face, codes: np.ndarray) -> np.ndarray:
        if self.renderer is None:
            raise UserError("pictures need a renderer")
        n = len(lips)
        base = pose.frames is not None
        return self.renderer.frames(
            self.points(identity, lips, pose, codes),
            identity.need("frames", self.name),
            identity.need("landmarks", self.name),
            held(pose.need("frames", self.name), n) if base else None,
            held(pose.need("landmarks", self.name), n) if base else None,
        )


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """Fit the codec on the training split; print R2 as JSON for this split and for the speakers of the other split."""
    parser = argparse.ArgumentParser(prog="python -m cmet_reference.cmet.blendshape", description=main.__doc__)
    parser.add_argument("data", type=Path, help="a shard set")
    parser.add_argument("--split", default="test", help="the split of held-out speakers")
    parser.add_argument("--size", type=int, default=10)
    args = parser.parse_args(argv)
    train, test = read_clips([args.data]), read_clips([args.data], args.split)
    model = fit_model(train, args.size)
    out = {
        name: {region: round(value, 3) for region, value in explained(model, clips).items()}
        for name, clips in (("training speakers", train), ("held-out speakers", test))
    }
    print(json.dumps(out, indent=1))
    return out


if __name__ == "__main__":
    main()
