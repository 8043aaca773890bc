"""The default face codec: encodes MediaPipe's 52 coefficients as ten numbers, and decodes them to landmarks.

An expression lasts longer than sounds and blinks. Therefore coefficients are averaged over two seconds before they are
projected, and the codes give a slow displacement of the landmarks. Audio2Mouth gives the motion of the lips, as a
displacement from the clip's own mean, so that the two can be added.

`python -m cmet_reference.cmet.blendshape DATA` fits it and prints the variance that it explains on held-out speakers.
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

SLOW = 51  # frames: 2 s; of 25, 51 and 101 it explains most of held-out landmarks
RIDGE = 0.1  # of the mean variance of a predictor; 0.001 to 0.1 differ by 0.02 in held-out R2
SPEECH_SIZE = 12  # principal motions of lips and jaw that carry the skin around them
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
    """The fitted codec: float32 arrays. Their names are stored in checkpoints."""

    template: np.ndarray  # (478, 3) mean face in the head's frame
    centre: np.ndarray  # (52,) coefficients of the code 0
    to_code: np.ndarray  # (52, C)
    to_points: np.ndarray  # (C, 478, 3) eye distances a unit of the code
    speech: np.ndarray  # (57 * 3, K) principal motions of lips and jaw
    speech_to_points: np.ndarray  # (K, 478, 3) how the skin follows them

    @property
    def size(self) -> int:
        return self.to_code.shape[1]

    def codes(self, blendshapes: np.ndarray) -> np.ndarray:
        """(T, 52) coefficients to (T, C) float32 codes; each code covers the two seconds around its frame."""
        return ((slow(blendshapes) - self.centre) @ self.to_code).astype(np.float32)

    def displaced(self, codes: np.ndarray) -> np.ndarray:
        """(T, C) differences of codes to (T, 478, 3) displacements in the head's frame."""
        return np.tensordot(codes, self.to_points, axes=1).astype(np.float32)

    def upper(self) -> np.ndarray:
        """(478,): 1 for points that speech does not move, down to the tip of the nose; 0 from the philtrum on."""
        y = self.template[:, 1]
        return np.clip((y[_PHILTRUM] - y) / (y[_PHILTRUM] - y[_NOSE_TIP]), 0, 1).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name, for a checkpoint; `BlendshapeModel(**arrays)` is the inverse."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def slow(track: np.ndarray, width: int = SLOW) -> np.ndarray:
    """(T, ...), each frame the mean of the `width` frames around it; near the ends of those that exist."""
    n = len(track)
    total = np.concatenate([np.zeros((1, *track.shape[1:])), np.cumsum(track, axis=0, dtype=np.float64)])
    at = np.arange(n)
    first, last = np.maximum(at - width // 2, 0), np.minimum(at + width // 2 + 1, n)
    return ((total[last] - total[first]) / (last - first).reshape(-1, *[1] * (track.ndim - 1))).astype(np.float32)


def fit_model(clips: Sequence[ClipArrays], size: int = 10) -> BlendshapeModel:
    """The codec of a training split.

    Codes: principal components of the clips' mean coefficients, each clip minus its speaker's neutral mean, so
    that neither speaker nor content is a component. Coefficients are divided by the root of their standard deviation
    first (Pareto scaling). Without scaling, brows and nose are lost, whose coefficients are small; with standardised
    ones, coefficients that hardly move get in. Codes have a mean variance of 1, which is the unit of the losses.

    Points: ridge regression of slow displacements from the speaker's neutral mean, codes to landmarks.

    Raises UserError where there are too few clips.
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
    """The share of the landmarks' slow variance around each speaker's neutral mean that the codes explain, by region.

    R2 = 1 - sum |true - predicted|^2 / sum |true|^2 over clips, frames and coordinates; the baseline is the speaker's
    own neutral mean.
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
    """Slow codes (R, C) and points (R, 478, 3) of every fifth frame, minus the speaker's neutral mean."""
    codes = [coded(c)[::5] for c in clips]
    points = [slow(h)[::5] for h in heads]
    rest_codes = _rests(clips, np.stack([c.mean(axis=0) for c in codes]))
    rest_points = _rests(clips, np.stack([p.mean(axis=0) for p in points]))
    return (
        np.concatenate([c - r for c, r in zip(codes, rest_codes, strict=True)]),
        np.concatenate([p - r for p, r in zip(points, rest_points, strict=True)]),
    )


def _rests(clips: Sequence[ClipArrays], means: np.ndarray) -> np.ndarray:
    """(N, ...) means of clips to the neutral mean of each clip's speaker; without neutral clips, the mean of all."""
    out = np.empty_like(means)
    for speaker in {c.speaker for c in clips}:
        own = [i for i, c in enumerate(clips) if c.speaker == speaker]
        neutral = [i for i in own if clips[i].emotion == "neutral"]
        out[own] = means[neutral or own].mean(axis=0)
    return out


def _ridge(x: np.ndarray, y: np.ndarray, penalty: float = RIDGE) -> np.ndarray:
    """Ridge regression of (N, B) on (N, A): (A, B)."""
    square = x.T @ x
    return np.linalg.solve(square + penalty * np.trace(square) / len(square) * np.eye(len(square)), x.T @ y)


class BlendshapeCodec:
    """The fitted model, with Audio2Mouth for the lips and a renderer for the pictures. Implements `FaceCodec`."""

    name = "blendshape"

    def __init__(
        self, model: BlendshapeModel, mouth: Audio2Mouth | None = None, renderer: Renderer | None = None
    ) -> None:
        self.model, self.mouth, self.renderer = model, mouth, renderer
        self.size = model.size

    def encode(self, face: Face) -> np.ndarray:
        return self.model.codes(face.need("blendshapes", "the blendshape codec"))

    def lips(self, audio: np.ndarray, identity: Face, frames: int) -> np.ndarray:
        """(frames, 57, 3) displacements of Audio2Mouth's points from the identity's mean, in the head's frame."""
        if self.mouth is None:
            raise UserError("lips need Audio2Mouth: run `cmet-eval train cem-net --data SHARDS --stage audio2mouth`")
        template = self.mouth.template.cpu().numpy()
        landmarks = identity.need("landmarks", "Audio2Mouth")
        known = to_head(landmarks, fit_pose(landmarks, template))
        take = np.linspace(0, len(known) - 1, self.mouth.settings.references).round().astype(int)
        # The pose comes from the upper face alone. Its mean is held, so that only speech moves the mouth.
        held_still = np.repeat(known.mean(axis=0, keepdims=True), frames, axis=0)
        return self.mouth.mouth(audio, known, held_still, frames) - known[take][:, POINTS].mean(axis=0)

    def points(self, identity: Face, lips: np.ndarray, pose: Face, codes: np.ndarray) -> np.ndarray:
        """The face's landmarks: (T, 478, 3) px of the pose's picture.

        The sum of: the identity's mean face; the displacement of the codes; the lips with the skin around them; and the
        fast motion of the upper face in the pose's video (blinks, gaze).
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
    """Fit on the training split; print R2 on it and on the other split's speakers as JSON."""
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
