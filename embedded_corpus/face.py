"""Draws the moving part of a face from the weights of the rig's actions.

The texture of the face has two layers, which separate at the lips and at the eyelids when the mouth or the eyes open.
The eyeballs and the inside of the mouth are then visible between the layers.
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from embedded_corpus.identity import Identity
from embedded_corpus.inside import to_bytes
from embedded_corpus.pose import Pose
from embedded_corpus.rig import ACTION_INDEX, FACE_BOX, invert, shade_weights
from embedded_corpus.textures import FaceRig, HeadTexture, InsideTexture


class FaceDrawer:
    """Draws the moving face of one speaker at one picture size."""

    def __init__(self, person: Identity, res: float, head: HeadTexture, rig: FaceRig, inside: InsideTexture) -> None:
        self._person, self._res = person, res
        self._head, self._rig, self._inside = head, rig, inside
        self._shade_key: bytes = b""
        self._source = np.empty(0, np.uint8)

    def draw(self, weights: np.ndarray, pose: Pose) -> np.ndarray:
        """The face with hair and glasses: (h, w, 4) uint8 premultiplied RGBA. Of `pose`, only the gaze is used."""
        head, rig = self._head, self._rig
        source = self._shaded(weights)
        up = self._map(rig.fields_up, weights)
        out = cv2.remap(source, *up, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        low = self._map(rig.fields_low, weights)
        for k, (rows, cols) in enumerate(rig.patches):
            part = np.ascontiguousarray(out[rows, cols])
            under = cv2.remap(
                source, low[0][rows, cols], low[1][rows, cols], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
            a = part[..., 3].astype(np.float32) * (1 / 255)
            b = 1 - under[..., 3].astype(np.float32) * (1 / 255)
            hole = np.clip(1 - a - b, 0, 1)
            skin = cv2.blendLinear(part, under, a + 1e-4, b + 1e-4)
            behind = self._mouth(weights, a) if k == 0 else self._eye(k, pose, a)
            out[rows, cols, :3] = cv2.blendLinear(np.ascontiguousarray(skin[..., :3]), behind, 1 - hole, hole)
        alpha = head.face_alpha.copy()
        top = round((0.30 - FACE_BOX[1]) * self._res)
        alpha[top:] = cv2.remap(
            head.face_alpha, low[0][top:], low[1][top:], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        rgb = cv2.multiply(cv2.cvtColor(out, cv2.COLOR_RGBA2RGB), head.over_keep, scale=1 / 255)
        rgb = cv2.multiply(rgb, cv2.merge([alpha] * 3), scale=1 / 255)
        rgb = cv2.add(rgb, head.over)
        return cv2.merge([*cv2.split(rgb), cv2.max(alpha, head.over_alpha)])

    def _shaded(self, weights: np.ndarray) -> np.ndarray:
        """The texture with the creases that the weights cause.

        To save time, the weights of the creases are rounded to multiples of 1/24. The texture is drawn again only if a
        rounded weight changes.
        """
        shades = np.rint(shade_weights(weights) * 24) / 24
        key = shades.tobytes()
        if key != self._shade_key:
            light = 1 + (shades.astype(np.float32) @ self._rig.shades).reshape(self._head.face_shape)
            rgb = cv2.multiply(self._head.face_rgb, cv2.merge([light] * 3))
            self._source = to_bytes(np.dstack([rgb * (1 / 255), self._rig.above]))
            self._shade_key = key
        return self._source

    def _map(self, basis: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tables (h, w) for OpenCV's remap, in fixed-point form: the texture position of each pixel of the face."""
        h, w = self._head.face_shape
        gx, gy = self._rig.gx, self._rig.gy
        at = invert((weights @ basis).reshape(*gx.shape, 2), gx, gy, FACE_BOX, 10)
        pixels = (at - np.array([FACE_BOX[0], FACE_BOX[1]], np.float32)) * np.float32(self._res) - np.float32(0.5)
        return fixed_point(cv2.resize(pixels, (w, h), interpolation=cv2.INTER_LINEAR))

    def _eye(self, k: int, pose: Pose, above: np.ndarray) -> np.ndarray:
        """The eyeball in patch `k` (1 left, 2 right), with the shadow of the upper lid.

        `above` is the alpha of the skin above the slit, which casts the shadow.
        """
        p, res = self._person, self._res
        rows, cols = self._rig.patches[k]
        behind = self._inside.behind[rows, cols].copy()
        side = -1 if k == 1 else 1
        cx = (side * p.eye_x + pose.gaze_x - FACE_BOX[0]) * res - 0.5 - cols.start
        cy = (p.eye_y - 0.012 * (p.eye_open / 0.09) + pose.gaze_y - FACE_BOX[1]) * res - 0.5 - rows.start
        half = self._inside.iris.shape[0] // 2
        shift = np.array([[1, 0, cx - half], [0, 1, cy - half]], np.float32)
        blend_over(behind, _shifted(self._inside.iris, shift, behind))
        at = (round((cx - 0.016 * res) * 16), round((cy - 0.020 * res) * 16))
        glint = 0.011 * res
        cv2.circle(behind, at, max(8, round(glint * 16)), (250, 250, 250), -1, cv2.LINE_AA, 4)
        return _shadowed(behind, above, max(1, round(0.026 * res)), 3, 0.52)

    def _mouth(self, weights: np.ndarray, above: np.ndarray) -> np.ndarray:
        """The inside of the mouth, with the shadow of the upper lip.

        `above` is the alpha of the skin above the slit, which casts the shadow.
        """
        behind = self._inside.behind[self._rig.patches[0]].copy()
        open_, jaw, tuck = (float(weights[ACTION_INDEX[name]]) for name in ("open", "jaw", "tuck"))
        drop = (0.060 * open_ + 0.045 * jaw - 0.01 * tuck) * self._res
        shift = np.array([[1, 0, 0], [0, 1, drop]], np.float32)
        blend_over(behind, _shifted(self._inside.tongue, shift, behind))
        return _shadowed(behind, above, max(1, round(0.045 * self._res)), 5, 0.45)


def _shifted(layer: np.ndarray, shift: np.ndarray, like: np.ndarray) -> np.ndarray:
    return cv2.warpAffine(layer, shift, (like.shape[1], like.shape[0]), flags=cv2.INTER_LINEAR)


def _shadowed(picture: np.ndarray, above: np.ndarray, down: int, width: int, strength: float) -> np.ndarray:
    """The picture with the shadow of the skin above the slit.

    The shadow is the alpha `above` of this skin, moved down by `down` px and blurred.
    """
    moved = np.vstack([np.ones((down, above.shape[1]), np.float32), above[:-down]])
    shadow = cv2.blur(moved, (width, down | 1))
    return cv2.multiply(picture, cv2.merge([1 - strength * shadow] * 3), dtype=cv2.CV_8U)


def fixed_point(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Converts a remap table (h, w, 2) float32 to OpenCV's fixed-point form, with which remapping is a third faster."""
    whole, part = cv2.convertMaps(pixels, cast(np.ndarray, None), cv2.CV_16SC2)  # the type stub does not allow None
    return np.asarray(whole), np.asarray(part)


def blend_over(under: np.ndarray, layer: np.ndarray) -> None:
    """Draws a premultiplied RGBA layer over the RGB picture `under`, in place."""
    r, g, b, a = cv2.split(layer)
    keep = cv2.merge([cv2.bitwise_not(a)] * 3)
    under[:] = cv2.add(cv2.multiply(np.ascontiguousarray(under), keep, scale=1 / 255), cv2.merge([r, g, b]))
