"""Fits `Appearance` to a training split: its response on pictures that the mesh drew, its creases on emotional clips.

The fit has a closed form, so it is a stage without steps: the training loop solves it, and writes its file and card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from cmet_pipelines.shards import ShardSet
from cmet_reference.clips import ClipArrays, by_speaker
from cmet_reference.geometry import fit_pose, mean_face, to_head, to_picture
from cmet_reference.render.appearance import SIDE, Appearance, Correction, Square
from cmet_reference.render.mesh import MeshRenderer
from cmet_reference.render.triangles import N_SKIN
from cmet_reference.training import checkpoints
from cmet_reference.training.stage import Optimizer
from talking_face.pretrained.face_landmarker import FaceLandmarker
from talking_face.pretrained.model_files import ModelFiles
from talking_face.progress import Progress
from talking_face.reasons import UserError

KIND = "appearance"
_TEMPLATE_FRAMES = 4096  # at most; every tenth one of a small corpus


@dataclass(frozen=True)
class AppearanceSettings:
    """How the appearance model is fitted."""

    axes: int = 16  # of displacements, K
    drawn: int = 400  # pictures that are drawn and measured, over all speakers
    held_drawn: int = 60  # the same for held-out speakers, for the figures
    gain: tuple[float, float] = (0.8, 1.8)  # least and greatest factor of their displacements
    least_unit: float = (
        0.004  # eye distances added to a point's usual displacement, so that still points are not enlarged
    )
    # Smaller singular values of the response are replaced by this, so that noise is enlarged at most 2.5 times.
    least_response: float = 0.4
    clips: int = 64  # of a speaker, for the creases
    frames: int = 6  # of each
    # Where a speaker's own skin changes by more than this from pixel to pixel (log units: brows, frames of glasses,
    # hair), a displacement by a pixel outweighs any crease, and other people's skin counts more.
    edge: float = 0.06
    ridge: float = 0.1  # relative to the coordinates' variance, where every speaker's skin is smooth


def load(path: Path, correction: Correction | None = None, suffix: str = "") -> Appearance:
    """The model of a checkpoint.

    Args:
        correction: of its creases.
        suffix: of its revision: the correction's revision.

    Raises:
        UserError: the file cannot be used.
    """
    state, _ = checkpoints.load(path, KIND)
    with checkpoints.as_saved(path, KIND):
        arrays = {name: values.numpy() for name, values in state.items()}
        return Appearance(arrays, correction, f"{KIND}-{checkpoints.revision(path)}{suffix}")


class AppearanceNet(nn.Module):
    """The model's arrays as buffers."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        shapes = {
            "template": (478, 3),
            "unit": (N_SKIN,),
            "axes": (axes, 2 * N_SKIN),
            "further": (axes, axes),
            "creases": (axes, SIDE, SIDE),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))


class AppearanceStage:
    """The appearance model of a training split. Implements `ClosedForm`."""

    name = KIND
    steps = 0

    def __init__(
        self,
        settings: AppearanceSettings,
        train: Sequence[ClipArrays],
        test: Sequence[ClipArrays],
        seed: int,
        quiet: bool = True,
        *,
        files: ModelFiles,
    ) -> None:
        self.files = files
        self.settings, self.train, self.test, self.seed, self.quiet = settings, train, test, seed, quiet
        self.net = AppearanceNet(settings.axes)
        self.response = np.zeros(0)

    def solve(self) -> None:
        """Fit the model. Raises UserError where too few drawn pictures show a face."""
        settings, train, quiet = self.settings, self.train, self.quiet
        draw = np.random.default_rng(self.seed)
        tracks = [clip.landmarks[::10] for clip in train]
        template = mean_face(tracks, min(_TEMPLATE_FRAMES, sum(len(track) for track in tracks)))
        asked, found = response_samples(train, template, settings.drawn, settings.gain, draw, quiet, files=self.files)
        if len(asked) < settings.axes:
            raise UserError(
                f"of {settings.drawn} frames of the training split whose faces were moved, {len(asked)} showed a face "
                f"before and after, and {settings.axes} are needed: look at the crops with `cmet-eval inspect`; faces "
                "should fill them, upright and seen from the front"
            )
        unit = np.sqrt((asked**2).mean(axis=(0, 2))) + settings.least_unit
        axes = np.linalg.svd(_flat(asked / unit[:, None]), full_matrices=False)[2][: settings.axes]
        further, self.response = inverse_response(
            _flat(asked / unit[:, None]) @ axes.T, _flat(found / unit[:, None]) @ axes.T, settings.least_response
        )
        creases = fit_creases(train, template, unit, axes, settings, draw, quiet)
        arrays = {"template": template, "unit": unit, "axes": axes, "further": further, "creases": creases}
        self.net.load_state_dict({k: torch.from_numpy(np.ascontiguousarray(v, np.float32)) for k, v in arrays.items()})

    def optimizers(self) -> Mapping[str, Optimizer]:
        return {}

    def batch(self, step: int) -> Mapping[str, np.ndarray]:
        raise AssertionError("a closed form has no steps")

    def loss(self, batch: Mapping[str, Tensor], optimizer: str) -> tuple[Tensor, Mapping[str, Tensor]]:
        raise AssertionError("a closed form has no steps")

    def held_out(self) -> Mapping[str, float]:
        """The share of the requested motion that the detector finds on held-out speakers, as a slope; 1 is perfect.

        `response`: the mesh moves to the requested points; `further`: to those of this model.
        """
        if not self.test:
            return {}
        learnt = Appearance({name: values.cpu().numpy() for name, values in self.net.state_dict().items()})
        out = {}
        for kind, expression in (("response", None), ("further", learnt)):
            draw = np.random.default_rng(self.seed)  # the same faces twice
            samples = response_samples(
                self.test,
                learnt.template,
                self.settings.held_drawn,
                (1.0, 1.0),
                draw,
                self.quiet,
                expression,
                files=self.files,
            )
            asked, found = (s / learnt.unit[:, None] for s in samples)
            for name, at in PARTS.items():
                out[f"{kind}_{name}"] = _slope(asked[:, at], found[:, at]) if len(asked) else float("nan")
        return {name: value for name, value in out.items() if np.isfinite(value)}

    def record(self) -> Mapping[str, object]:
        return {"response": [round(float(r), 3) for r in self.response]}


PARTS: Mapping[str, list[int]] = {
    "face": list(range(N_SKIN)),
    "brows": [70, 63, 105, 66, 107, 46, 53, 52, 65, 55, 300, 293, 334, 296, 336, 276, 283, 282, 295, 285],
    "eyelids": [159, 145, 386, 374],
    "lips": [61, 291, 0, 17, 13, 14, 37, 267, 84, 314],
    "jaw": [152, 148, 377, 176, 400],
}


def _slope(asked: np.ndarray, found: np.ndarray) -> float:
    return float((asked * found).sum() / max(float((asked**2).sum()), 1e-12))


def _flat(samples: np.ndarray) -> np.ndarray:
    return samples.reshape(len(samples), -1)


# The response --------------------------------------------------------------------------------------------------------


def response_samples(
    clips: Sequence[ClipArrays],
    template: np.ndarray,
    n: int,
    gain: tuple[float, float],
    draw: np.random.Generator,
    quiet: bool = True,
    expression: Appearance | None = None,
    *,
    files: ModelFiles,
) -> tuple[np.ndarray, np.ndarray]:
    """Moves frames of a speaker to the faces of other frames of the same speaker, and measures the motion.

    Args:
        clips: of several speakers, who take turns.
        template: (478, 3) of the head's frame.
        n: number of pictures.
        gain: least and greatest factor of the displacements.
        expression: of the renderer.

    Returns:
        (N, 468, 2) requested and found displacements in the head's frame; N is at most `n`.
    """
    of = by_speaker(clips)
    opened, renderer, asked, found = cache(ShardSet), MeshRenderer(expression=expression), [], []
    with FaceLandmarker("image", files=files) as landmarker, Progress(n, "pictures", "response", quiet) as progress:
        for k in range(n):
            progress.advance()
            own = of[list(of)[k % len(of)]]
            clip, other = (own[int(i)] for i in draw.integers(len(own), size=2))
            t, u = (int(at[draw.integers(len(at))]) for at in (_seen(opened(c.folder), c) for c in (clip, other)))
            strength = draw.uniform(*gain)
            pose = fit_pose(clip.landmarks[t : t + 1], template)
            base = to_head(clip.landmarks[t : t + 1], pose)
            wanted = to_head(other.landmarks[u : u + 1], fit_pose(other.landmarks[u : u + 1], template))
            move = strength * (wanted - base)
            frame, points = opened(clip.folder).frames(clip.clip_id, [t]), clip.landmarks[t : t + 1]
            drawn = renderer.frames(to_picture(base + move, pose), frame, points, frame, points)
            seen = [landmarker.detect(picture) for picture in (frame[0], drawn[0])]
            if seen[0] is None or seen[1] is None:
                continue
            heads = [to_head(s.landmarks[None], fit_pose(s.landmarks[None], template))[0] for s in seen if s]
            asked.append(move[0, :N_SKIN, :2])
            found.append((heads[1] - heads[0])[:N_SKIN, :2])
    return np.array(asked).reshape(-1, N_SKIN, 2), np.array(found).reshape(-1, N_SKIN, 2)


def _seen(shards: ShardSet, clip: ClipArrays) -> np.ndarray:
    """The clip's frames with a face; the others' landmarks are interpolated."""
    return np.flatnonzero(shards.valid(clip.clip_id)[: len(clip)])


def inverse_response(asked: np.ndarray, found: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """The matrix (K, K) from wanted coordinates to those to request, and the response's singular values.

    `found` is regressed on `asked`, which has no noise; the opposite regression would underestimate the slopes.

    Args:
        asked, found: (N, K).
        least: replaces smaller singular values of the response.
    """
    inner = asked.T @ asked
    response = np.linalg.solve(inner + 1e-3 * np.trace(inner) / len(inner) * np.eye(len(inner)), asked.T @ found)
    left, values, right = np.linalg.svd(response)
    return (right.T / np.maximum(values, least)) @ left.T, values


# Creases -------------------------------------------------------------------------------------------------------------


def fit_creases(
    clips: Sequence[ClipArrays],
    template: np.ndarray,
    unit: np.ndarray,
    axes: np.ndarray,
    settings: AppearanceSettings,
    draw: np.random.Generator,
    quiet: bool = True,
) -> np.ndarray:
    """The creases, (K, 128, 128): log ratio to the speaker's neutral skin, by weighted ridge regression on coordinates.

    A clip is one observation: the mean over some frames. A speaker without neutral clips is compared with the mean of
    all their clips.
    """
    square, opened = Square(template), cache(ShardSet)
    of = by_speaker(clips)
    grams, moments, weights, scale = [], [], [], np.zeros(len(axes))
    total = sum(min(settings.clips, len(own)) for own in of.values())
    with Progress(total, "clips", "creases", quiet) as progress:
        for own in of.values():
            if len(own) > settings.clips:
                own = choose_clips(own, settings.clips, draw)
            skin, faces = [], []
            for clip in own:
                seen = _seen(opened(clip.folder), clip)
                at = seen[np.linspace(0, len(seen) - 1, settings.frames + 2).round().astype(int)[1:-1]]
                pictures, points = opened(clip.folder).frames(clip.clip_id, list(at)), clip.landmarks[at]
                skin.append(square.skin(pictures, points))
                faces.append(to_head(points, fit_pose(points, template)).mean(axis=0)[:N_SKIN, :2])
                progress.advance()
            rest = np.array([clip.emotion == "neutral" for clip in own])
            rest = rest if rest.any() else np.ones(len(own), bool)
            own_skin = np.mean([skin[i] for i in np.flatnonzero(rest)], axis=0)
            own_face = np.mean([faces[i] for i in np.flatnonzero(rest)], axis=0)
            z = _flat((np.array(faces) - own_face) / unit[:, None]) @ axes.T
            grams.append(z.T @ z)
            moments.append(z.T @ (np.array(skin) - own_skin))
            weights.append(smooth_skin(square.image(own_skin), settings.edge)[square.y, square.x])
            scale += (z**2).sum(axis=0)
    inner = np.einsum("sp,skl->pkl", np.array(weights), np.array(grams))
    inner += settings.ridge * np.diag(scale)
    outer = np.einsum("sp,skp->pk", np.array(weights), np.array(moments))
    solved = np.linalg.solve(inner, outer[..., None])[..., 0] * square.edge[:, None]
    return np.stack([square.image(column) for column in solved.T])


def choose_clips(own: Sequence[ClipArrays], n: int, draw: np.random.Generator) -> list[ClipArrays]:
    """`n` random clips of a speaker who has more: neutral ones first, up to a quarter, then any others."""
    neutral = np.flatnonzero([clip.emotion == "neutral" for clip in own])
    first = draw.choice(neutral, min(len(neutral), max(1, n // 4)), replace=False)
    rest = draw.choice(np.setdiff1d(np.arange(len(own)), first), n - len(first), replace=False)
    return [own[i] for i in sorted([*first, *rest])]


def smooth_skin(skin: np.ndarray, edge: float) -> np.ndarray:
    """(128, 128) in (0, 1]: the weight of each pixel; small where a small shift changes the brightness much."""
    steep = cv2.Sobel(skin, cv2.CV_32F, 1, 0) ** 2 + cv2.Sobel(skin, cv2.CV_32F, 0, 1) ** 2
    return np.asarray(1 / (1 + cv2.GaussianBlur(steep / 64, (0, 0), 1.5) / edge**2))
