"""Draws faces with the flow renderer, the trained renderer of the CEM-Net paper."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from cmet_reference.render.base import base_of
from cmet_reference.render.crops import (
    FaceCrops,
    crop,
    crop_matrix,
    drawn_part,
    in_crop,
    sketch,
    square,
    to_channels_first,
)
from cmet_reference.render.flow_nets import RendererNet, RendererSettings
from cmet_reference.render.flow_stage import KIND
from cmet_reference.training import checkpoints

_FEATHER = 0.03  # width of the blend between the drawn part and the picture, as a share of the crop's size
_FRAMES_AT_ONCE = 8


class FlowRenderer:
    """Draws with a trained flow renderer. Implements `cmet_reference.render.base.Renderer`."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        """`path`: the checkpoint. Raises the same errors as `checkpoints.load`."""
        state, record = checkpoints.load(path, KIND)
        with checkpoints.as_saved(path, KIND):
            self.settings = RendererSettings(**record["settings"])
            self.net = RendererNet(self.settings)
            self.net.load_state_dict(state)
        self.net.eval().to(device)
        self.revision = f"flow-2-{checkpoints.revision(path)}"

    @torch.inference_mode()
    def frames(
        self,
        landmarks: np.ndarray,
        reference_frames: np.ndarray,
        reference_landmarks: np.ndarray,
        base_frames: np.ndarray | None = None,
        base_landmarks: np.ndarray | None = None,
    ) -> np.ndarray:
        """See `Renderer.frames`. Only the region in the settings is drawn; other pixels are copied from the base."""
        s = self.settings
        base_frames, base_landmarks = base_of(
            len(landmarks), reference_frames, reference_landmarks, base_frames, base_landmarks
        )
        box = square(landmarks, base_landmarks)
        pictures, points = crop(base_frames, box, s.size), in_crop(landmarks, box, s.size)
        old = in_crop(base_landmarks, box, s.size)
        boxes = [square(track[None]) for track in reference_landmarks]
        known = FaceCrops(
            np.concatenate([crop(f[None], b, s.size) for f, b in zip(reference_frames, boxes, strict=True)]),
            np.concatenate([in_crop(t[None], b, s.size) for t, b in zip(reference_landmarks, boxes, strict=True)]),
        )
        parts = [drawn_part(new, s, before) for new, before in zip(points, old, strict=True)]
        masked = np.stack([np.where(part[..., None], 0, p) for part, p in zip(parts, pictures, strict=True)])
        faces = self._faces(masked, points, known)
        return np.stack([_pasted(b, f, p, box) for b, f, p in zip(base_frames, faces, parts, strict=True)])

    def _faces(self, masked: np.ndarray, points: np.ndarray, known: FaceCrops) -> np.ndarray:
        """Draws the crops, (T, size, size, 3) uint8.

        Args:
            masked: (T, size, size, 3) uint8, crops of the base frames in which the part to draw is black.
            points: (T, 478, 2) px of the crops, the landmarks to draw.
            known: crops of the reference frames.
        """
        n, window, device = len(points), self.settings.window, next(self.net.parameters()).device
        sketches = self._sketches(points)
        around = np.clip(np.arange(n)[:, None] + np.arange(window) - window // 2, 0, n - 1)
        references = (known.pictures, self._sketches(known.points))
        given = [torch.from_numpy(to_channels_first(x)).to(device) for x in references]
        faces = []
        for index in np.array_split(np.arange(n), max(1, -(-n // _FRAMES_AT_ONCE))):
            wanted = np.concatenate([to_channels_first(sketches[around[index, k]]) for k in range(window)], axis=1)
            face, _ = self.net(
                torch.from_numpy(to_channels_first(masked[index])).to(device),
                torch.from_numpy(wanted).to(device),
                *(x.expand(len(index), -1, -1, -1, -1) for x in given),
            )
            faces.append((face.permute(0, 2, 3, 1).cpu().numpy() * 255).round().astype(np.uint8))
        return np.concatenate(faces)

    def _sketches(self, points: np.ndarray) -> np.ndarray:
        return np.stack([sketch(p, self.settings.size) for p in points])


def _pasted(picture: np.ndarray, face: np.ndarray, part: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Blends the drawn part of a crop into the base picture.

    Args:
        picture: (H, W, 3) uint8, the base frame.
        face: (size, size, 3) uint8, the drawn crop.
        part: (size, size) bool, the pixels of the crop that are drawn.
        box: the crop's square in the picture; see `crops.square`.
    """
    size = len(face)
    height, width = picture.shape[:2]
    # Outside of the crop the mask is 0, so its share falls to 0 at the sides of the crop.
    soft = cv2.GaussianBlur(part.astype(np.float32), (0, 0), _FEATHER * size, borderType=cv2.BORDER_CONSTANT)
    mask = np.clip(2 * soft - 1, 0, 1)
    back = cv2.invertAffineTransform(crop_matrix(box, size))
    # Without the repeated edge, the crop's outermost pixels would be mixed with black: a dark line of one pixel.
    placed = cv2.warpAffine(face, back, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    share = cv2.warpAffine(mask, back, (width, height), flags=cv2.INTER_LINEAR)[..., None]
    return np.clip(np.round(picture * (1 - share) + placed * share), 0, 255).astype(np.uint8)
