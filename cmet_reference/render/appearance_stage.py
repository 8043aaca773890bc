"""Fits the appearance model of the mesh renderer, `Appearance`, to a training split.

The response is fitted to pictures that the mesh renderer draws, and the creases to the clips. The fit has a closed
form, so this stage has no training steps: the training loop calls the method `solve`, then writes the file and the
card.
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
_TEMPLATE_FRAMES = 4096  # greatest number of frames for the template; at most every tenth frame is used


@dataclass(frozen=True)
class AppearanceSettings:
    """How the appearance model is fitted."""

    axes: int = 16  # K, number of axes that describe displacements of the face
    drawn: int = 400  # number of pictures that are drawn and measured for the response, over all speakers
    held_drawn: int = 60  # number of drawn pictures of held-out speakers, for the held-out figures
    gain: tuple[float, float] = (0.8, 1.8)  # least and greatest factor of the displacements in these pictures
    least_unit: float = (
        0.004  # eye distances that are added to each point's unit, so that noise of still points is not enlarged
    )
    # Singular values of the response below this value are replaced by this value, so that noise is enlarged at most 2.5
    # times.
    least_response: float = 0.4
    clips: int = 64  # greatest number of clips per speaker, for the creases
    frames: int = 6  # frames per clip, for the creases
    # Change of brightness from pixel to pixel, in log units, above which a pixel of a speaker gets little weight. Such
    # pixels are at brows, frames of glasses and hair. At these pixels, a shift by one pixel changes the brightness more
    # than any crease, so the skin of other people should have more weight.
    edge: float = 0.06
    ridge: float = 0.1  # penalty relative to the variance of the coordinates, for pixels with full weight


def load(path: Path, correction: Correction | None = None, suffix: str = "") -> Appearance:
    """Load the appearance model of a checkpoint.

    Args:
        correction: corrects the model's creases for one person.
        suffix: text that is added to the model's revision, for the correction.

    Raises:
        UserError: the file cannot be used.
    """
    state, _ = checkpoints.load(path, KIND)
    with checkpoints.as_saved(path, KIND):
        arrays = {name: values.numpy() for name, values in state.items()}
        return Appearance(arrays, correction, f"{KIND}-{checkpoints.revision(path)}{suffix}")


class AppearanceNet(nn.Module):
    """The arrays of the appearance model as buffers of a module, so that the training loop can save them."""

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
    """Fits the appearance model of a training split. Implements `ClosedForm`."""

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
        """Fit the model. Raises UserError if a face is found in too few of the drawn pictures."""
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
        """The share of the requested motion that the landmark detector finds in pictures of held-out speakers.

        Each figure is the slope of a regression; 1 is perfect. There are two figures for each region of PARTS. For
        `response_*`, the mesh moves to the requested landmarks. For `further_*`, the mesh moves further, as the
        appearance model demands.
        """
        if not self.test:
            return {}
        learnt = Appearance({name: values.cpu().numpy() for name, values in self.net.state_dict().items()})
        out = {}
        for kind, expression in (("response", None), ("further", learnt)):
            draw = np.random.default_rng(self.seed)  # the same random faces for both kinds
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
    """Measures how much of a requested motion the landmark detector finds in pictures drawn by the mesh renderer.

    For each picture, two frames of one speaker are chosen at random. The first frame is warped towards the face of the
    second frame. The detector measures the landmarks before and after the warp.

    Args:
        clips: clips of several speakers; the pictures alternate between speakers.
        template: (478, 3), mean face in the head's frame.
        n: number of pictures.
        gain: least and greatest factor of the displacements between the two faces.
        draw: the random generator.
        expression: the appearance model that the renderer uses; None: no model.

    Returns:
        requested and found displacements in the head's frame, (N, 468, 2) each. N is less than `n` if the detector
        does not find a face in some pictures.
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
    """Indices of the clip's frames in which a face was detected. Landmarks of all other frames are interpolated."""
    return np.flatnonzero(shards.valid(clip.clip_id)[: len(clip)])


def inverse_response(asked: np.ndarray, found: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of the detector's response, and the singular values of the response.

    The response is the linear map from requested to found coordinates. The regression predicts `found` from `asked`,
    because `asked` has no noise. A regression in the opposite direction would underestimate the slopes.

    Args:
        asked, found: (N, K) coordinates of the requested and of the found displacements.
        least: singular values of the response below this value are replaced by it.

    Returns:
        (K, K), the map from wanted coordinates to the coordinates to request; (K,), the singular values.
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
    """The creases, (K, 128, 128): change of the log brightness of the skin per unit of each coordinate.

    The creases are fitted by weighted ridge regression, for each pixel of the square. Each clip is one observation: the
    mean skin and the mean coordinates of some frames, relative to the speaker's neutral clips. If a speaker has no
    neutral clips, the observation is relative to the mean of all clips of the speaker.
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
    """Draws `n` clips of a speaker who has more than `n` clips.

    Up to a quarter of the drawn clips are neutral clips. The other clips are drawn from all remaining clips.
    """
    neutral = np.flatnonzero([clip.emotion == "neutral" for clip in own])
    first = draw.choice(neutral, min(len(neutral), max(1, n // 4)), replace=False)
    rest = draw.choice(np.setdiff1d(np.arange(len(own)), first), n - len(first), replace=False)
    return [own[i] for i in sorted([*first, *rest])]


def smooth_skin(skin: np.ndarray, edge: float) -> np.ndarray:
    """The weight of each pixel, (128, 128) in (0, 1]. It is small where a small shift strongly changes the brightness.

    Args:
        skin: (128, 128), log brightness of a speaker's skin.
        edge: change of brightness from pixel to pixel at which the weight is one half.
    """
    steep = cv2.Sobel(skin, cv2.CV_32F, 1, 0) ** 2 + cv2.Sobel(skin, cv2.CV_32F, 0, 1) ** 2
    return np.asarray(1 / (1 + cv2.GaussianBlur(steep / 64, (0, 0), 1.5) / edge**2))
