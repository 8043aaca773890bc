"""Draws one frame of a speaker: the moving face on the head, and the rotated head in front of body and background.

One unit of length is 100 mm (see identity.py).
"""

from __future__ import annotations

import cv2
import numpy as np

from embedded_corpus.face import FaceDrawer, blend_over, fixed_point
from embedded_corpus.geometry import HEAD_BOX
from embedded_corpus.hair import BODY_BOX
from embedded_corpus.identity import Identity
from embedded_corpus.pose import Pose
from embedded_corpus.textures import Scale, bake_head, bake_inside, bake_rig, bake_scene

DETAIL = 360.0  # pixels per unit at which skin and hair are drawn
PIVOT = np.array([0.0, 0.72, -0.65], np.float32)  # the point around which the head rotates, at the top of the neck


class Renderer:
    """Draws one speaker at one picture size.

    The textures are drawn once, which takes about 1.6 s. After that, a frame takes about 10 ms.
    """

    def __init__(self, person: Identity, width: int = 640, height: int = 360, detail: float = DETAIL) -> None:
        """Draws the textures. Skin and hair are drawn at `detail` pixels per unit, or finer, and then scaled down."""
        self.width, self.height = width, height
        scale = Scale.of(height)
        self.unit, self.res = scale.unit, scale.res
        self.centre = (width / 2, 0.455 * height)  # position of the face's origin in the picture, px
        self._head = bake_head(person, scale, detail)
        self._rig = bake_rig(person, scale, self._head.face_shape)
        inside = bake_inside(person, scale, self._head.face_shape, self._rig.patches[0])
        self._scene = bake_scene(person, scale.unit, width, height)
        self._face = FaceDrawer(person, scale.res, self._head, self._rig, inside)

    def marks(self, weights: np.ndarray) -> np.ndarray:
        """Five points of the face (5, 2) in head coordinates, units.

        The points are the middle of the upper and of the lower inner lip, the left and the right lip corner, the chin.
        """
        return self._rig.mark_points + np.einsum("k,kdn->nd", weights, self._rig.mark_fields)

    def frame(
        self, weights: np.ndarray, pose: Pose, index: int = 0, background: np.ndarray | None = None
    ) -> np.ndarray:
        """One picture, (H, W, 3) uint8 RGB.

        Args:
            weights: (len(ACTIONS),) float32, weights of the rig's actions.
            pose: the pose of the head.
            index: number that selects the pattern of the camera noise.
            background: (H, W, 3) uint8 RGB picture behind the speaker; None for the speaker's own background.
        """
        w = np.asarray(weights, np.float32)
        head, scene = self._head.whole, self._scene
        head[self._head.face_at] = self._face.draw(w, pose)
        picture = (scene.backdrop if background is None else background).copy()
        r = pose.matrix()
        if scene.behind is not None:
            self._affine(picture, scene.behind, pose.dx + 0.25 * float(r[0, 2]), pose.dy, pose.roll * 0.6)
        self._affine(picture, scene.body, 0.30 * pose.dx, 0.30 * pose.dy, 0.0)
        self._turn_head(picture, head, r, pose)
        oy, ox = (index * 37) % 61, (index * 53) % 97
        more, less = (g[oy : oy + self.height, ox : ox + self.width] for g in scene.grain)
        cv2.add(picture, more, dst=picture)
        return np.ascontiguousarray(cv2.subtract(picture, less, dst=picture))

    def _affine(self, picture: np.ndarray, layer: np.ndarray, dx: float, dy: float, roll: float) -> None:
        """Draws a layer of BODY_BOX over the picture, shifted (units) and rotated (radians) around the pivot."""
        c, s = np.cos(roll), np.sin(roll)
        # The transform has three steps: layer pixels to units, rotation around the pivot, units to picture pixels.
        to_units = np.array(
            [
                [1 / self.unit, 0, BODY_BOX[0] + 0.5 / self.unit],
                [0, 1 / self.unit, BODY_BOX[1] + 0.5 / self.unit],
                [0, 0, 1],
            ]
        )
        turn = np.array([[c, -s, dx], [s, c, dy], [0, 0, 1]])
        py = PIVOT[1]
        about = np.array([[1, 0, 0], [0, 1, py], [0, 0, 1]]) @ turn @ np.array([[1, 0, 0], [0, 1, -py], [0, 0, 1]])
        out = np.array([[self.unit, 0, self.centre[0] - 0.5], [0, self.unit, self.centre[1] - 0.5], [0, 0, 1]])
        m = (out @ about @ to_units)[:2]
        ys, xs = np.nonzero(layer[::8, ::8, 3])
        top, bottom = ys.min() * 8 - 8, ys.max() * 8 + 16
        left, right = xs.min() * 8 - 8, xs.max() * 8 + 16
        y0 = int(np.clip(top + m[1, 2] - 4, 0, self.height))
        y1 = int(np.clip(bottom + m[1, 2] + 4, 0, self.height))
        x0 = int(np.clip(left + m[0, 2] - 12, 0, self.width))
        x1 = int(np.clip(right + m[0, 2] + 12, 0, self.width))
        if x1 <= x0 or y1 <= y0:
            return
        m[0, 2] -= x0
        m[1, 2] -= y0
        part = cv2.warpAffine(layer, m, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
        blend_over(picture[y0:y1, x0:x1], part)

    def _turn_head(self, picture: np.ndarray, head: np.ndarray, r: np.ndarray, pose: Pose) -> None:
        """Draws the head's texture over the picture, rotated in 3D by the matrix `r` and shifted by the pose."""
        u, (cx, cy) = self.unit, self.centre
        pad = 0.12
        x0 = max(0, int(cx + (HEAD_BOX[0] - pad + pose.dx) * u))
        x1 = min(self.width, int(cx + (HEAD_BOX[2] + pad + pose.dx) * u))
        y0 = max(0, int(cy + (HEAD_BOX[1] - pad + pose.dy) * u))
        y1 = min(self.height, int(cy + (HEAD_BOX[3] + pad + pose.dy) * u))
        step = self._head.coarse
        gw, gh = int(np.ceil((x1 - x0) / step)), int(np.ceil((y1 - y0) / step))
        qx = (x0 + (np.arange(gw) + 0.5) * (x1 - x0) / gw - cx) / u
        qy = (y0 + (np.arange(gh) + 0.5) * (y1 - y0) / gh - cy) / u
        gx, gy = np.meshgrid(qx.astype(np.float32), qy.astype(np.float32))
        at = self._untilt(gx, gy, r, pose)
        pixels = (at - np.array([HEAD_BOX[0], HEAD_BOX[1]], np.float32)) * np.float32(self.res) - np.float32(0.5)
        tables = fixed_point(cv2.resize(pixels, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR))
        blend_over(picture[y0:y1, x0:x1], cv2.remap(head, *tables, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT))

    def _untilt(self, gx: np.ndarray, gy: np.ndarray, r: np.ndarray, pose: Pose) -> np.ndarray:
        """Head coordinates (h, w, 2) of the rotated surface at picture points (units), by fixed-point iteration."""
        qx = (gx - pose.dx - PIVOT[0]) / pose.scale
        qy = (gy - pose.dy - PIVOT[1]) / pose.scale
        inv = np.linalg.inv(r[:2, :2])
        at = np.dstack([gx, gy])
        sx = self._head.depth.shape[1] / (HEAD_BOX[2] - HEAD_BOX[0])
        sy = self._head.depth.shape[0] / (HEAD_BOX[3] - HEAD_BOX[1])
        for _ in range(5):
            mx, my = (at[..., 0] - HEAD_BOX[0]) * sx - 0.5, (at[..., 1] - HEAD_BOX[1]) * sy - 0.5
            z = cv2.remap(self._head.depth, mx, my, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) - PIVOT[2]
            ax, ay = qx - r[0, 2] * z, qy - r[1, 2] * z
            at = np.dstack([inv[0, 0] * ax + inv[0, 1] * ay + PIVOT[0], inv[1, 0] * ax + inv[1, 1] * ay + PIVOT[1]])
        return at

    def project(self, points: np.ndarray, pose: Pose) -> np.ndarray:
        """Picture positions (N, 2), px, of points (N, 2) on the head, units.

        The depth of each point is read from the height field of the head.
        """
        sx = self._head.depth.shape[1] / (HEAD_BOX[2] - HEAD_BOX[0])
        sy = self._head.depth.shape[0] / (HEAD_BOX[3] - HEAD_BOX[1])
        mx = ((points[:, 0] - HEAD_BOX[0]) * sx - 0.5).astype(np.float32)
        my = ((points[:, 1] - HEAD_BOX[1]) * sy - 0.5).astype(np.float32)
        z = cv2.remap(self._head.depth, mx[None], my[None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]
        solid = np.column_stack([points, z]) - PIVOT
        turned = (solid @ pose.matrix().T)[:, :2] * pose.scale + PIVOT[:2] + [pose.dx, pose.dy]
        return turned * self.unit + np.array(self.centre)
