"""The mesh renderer draws faces by warping a base picture with a triangle mesh. It uses one CPU core and no network.

Two rings of points around the face let the motion fade into hair, neck and backdrop. If the mouth or an eye must open
wider than in the base picture, the inside of the mouth or eye is copied from the most similar picture of the same
person. The inside of the mouth can also be copied from a drawn mouth (see `openings`).
"""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np

from cmet_reference.render.base import base_of
from cmet_reference.render.mesh_settings import MeshSettings
from cmet_reference.render.openings import cheek_colour, choose_donors, fill_opening, plan_donors
from cmet_reference.render.triangles import (
    HOLES,
    MOUTH,
    N_SKIN,
    OVAL,
    Drawn,
    back_to_front,
    draw,
    pixel_grid,
    sampled,
    under_triangles,
)

REVISION = "mesh-1"  # revision of the renderer without an `Expression`
_CENTRE = 4  # tip of the nose


class Expression(Protocol):
    """Effects of an expression that landmarks do not describe; see the module `appearance`."""

    revision: str

    def moved(self, target: np.ndarray, base: np.ndarray, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The points to which the picture must be warped, and the change of the light.

        The points are chosen so that a detector finds the landmarks `target` in the warped picture.

        Args:
            target: (T, 478, 3) px, the wanted landmarks; coordinate 0 is the picture's edge.
            base: (T, 478, 3) px, the landmarks of the base frames.
            frames: (T, H, W, 3) uint8 RGB, the base frames.

        Returns:
            the points, (T, 478, 3) float32 px; the change of the light as factors, (T, S, S) float32, on the square of
            the model.
        """
        ...

    def lit(self, picture: np.ndarray, points: np.ndarray, light: np.ndarray, skin: Drawn) -> np.ndarray:
        """Multiplies the face in a picture by the factors of the light.

        Args:
            picture: (H, W, 3) uint8 RGB.
            points: (468, 3) px of the face in the picture; pixel centres are whole numbers.
            light: (S, S), the factors of one frame from `moved`.
            skin: the pixels of the face's skin in the picture.
        """
        ...


class MeshRenderer:
    """Draws landmarks as pictures by piecewise affine motion. Implements `cmet_reference.render.base.Renderer`."""

    def __init__(self, settings: MeshSettings | None = None, expression: Expression | None = None) -> None:
        """`expression`: corrects the displacement and adds creases. With None, the points move to the landmarks."""
        self.settings, self.expression = settings or MeshSettings(), expression
        self.revision = REVISION + (f"-{expression.revision}" if expression else "")

    def frames(
        self,
        landmarks: np.ndarray,
        reference_frames: np.ndarray,
        reference_landmarks: np.ndarray,
        base_frames: np.ndarray | None = None,
        base_landmarks: np.ndarray | None = None,
    ) -> np.ndarray:
        """See `Renderer.frames`. Without base frames, the head in the first reference frame is moved."""
        n = len(landmarks)
        base_frames, base_landmarks = base_of(n, reference_frames, reference_landmarks, base_frames, base_landmarks)
        lights: np.ndarray | None = None
        if self.expression:
            landmarks, lights = self.expression.moved(landmarks, base_landmarks, base_frames)
        # From here on, pixel centres are whole numbers. In the arguments of this method, coordinate 0 is the picture's
        # edge.
        half = np.array([0.5, 0.5, 0], np.float32)
        target, source, references = (
            points[:, :N_SKIN].astype(np.float32) - half for points in (landmarks, base_landmarks, reference_landmarks)
        )
        donors = choose_donors(reference_frames, references, base_frames, source, self.settings)
        plans = [
            plan_donors(hole, target, source, donors, self.settings, index == MOUTH) for index, hole in enumerate(HOLES)
        ]
        source_mesh, target_mesh = _with_rings(source, target, self.settings)
        out = np.empty((n, *base_frames.shape[1:]), np.uint8)
        for t in range(n):
            picture = np.ascontiguousarray(base_frames[t])
            drawn = _draw(target_mesh[t], target[t], picture.shape[:2])
            moved = _warp(picture, source_mesh[t], target_mesh[t], drawn)
            if self.expression and lights is not None:
                moved = self.expression.lit(moved, target[t], lights[t], drawn.after(len(under_triangles())))
            light = cheek_colour(picture, source[t])
            for hole, plan in zip(HOLES, plans, strict=True):
                fill_opening(moved, hole, target[t], plan[t], donors, light)
            out[t] = moved
        return out


def _with_rings(source: np.ndarray, target: np.ndarray, settings: MeshSettings) -> tuple[np.ndarray, np.ndarray]:
    """Adds two rings of points around the face, to `source` and `target`: (T, 468, 3) to (T, 540, 2).

    The inner ring moves with the head. It also follows a share of the motion of the face's outline relative to the
    head. The outer ring does not move.
    """
    oval, moved = source[:, OVAL, :2], target[:, OVAL, :2]
    centre = source[:, _CENTRE, None, :2]
    inner, outer = (centre + scale * (oval - centre) for scale in settings.rings)
    head = np.stack([_similarity(a[:, :2], b[:, :2]) for a, b in zip(source, target, strict=True)])

    def with_head(points: np.ndarray) -> np.ndarray:
        return np.einsum("tpj,tij->tpi", points, head[:, :, :2]) + head[:, None, :, 2]

    moved_inner = with_head(inner) + settings.follow * (moved - with_head(oval))
    return np.concatenate([source[..., :2], inner, outer], 1), np.concatenate([target[..., :2], moved_inner, outer], 1)


def _similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The least-squares rotation, scale and shift from points a to points b, (n, 2) each, as a matrix (2, 3).

    The fit is computed with complex numbers x + iy.
    """
    p, q = a[:, 0] + 1j * a[:, 1], b[:, 0] + 1j * b[:, 1]
    flat = p - p.mean()
    turn = np.vdot(flat, q - q.mean()) / np.vdot(flat, flat)
    shift = q.mean() - turn * p.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]], np.float32)


def _draw(mesh: np.ndarray, face: np.ndarray, size: tuple[int, ...]) -> Drawn:
    """Draws the mesh from back to front, so that the far side of a rotated head is hidden.

    Args:
        mesh: (540, 2) px, the points of the face and of the rings.
        face: (468, 3) px, the points of the face; z gives the order.
        size: (height, width) px.
    """
    return draw(mesh, np.concatenate([under_triangles(), back_to_front(face)]), *size)


def _warp(picture: np.ndarray, source: np.ndarray, target: np.ndarray, drawn: Drawn) -> np.ndarray:
    """Warps the picture inside the mesh, so that the points `source` move to `target`, (540, 2) each."""
    grid = pixel_grid(*picture.shape[:2]).copy()
    grid[:, drawn.y, drawn.x] = drawn.mapped(target, source)
    return sampled(picture, grid, cv2.INTER_CUBIC)
