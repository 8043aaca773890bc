"""From weights, pose and gaze to a picture. `Renderer` holds what is drawn once per speaker and size.

A frame is made in two steps: the face's texture is moved by the expression (two layers that part at lips and lids, with
eyeballs and the mouth's inside behind them), and the head's texture is turned in depth over the body and background.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from embedded_corpus.geometry import HEAD_BOX, grid, mouth_centre, smoothstep
from embedded_corpus.hair import BODY_BOX, bake_body, bake_glasses, bake_hair
from embedded_corpus.identity import Identity, key_seed
from embedded_corpus.inside import bake_behind, bake_iris, bake_tongue, to_bytes
from embedded_corpus.rig import (
    ACTION_INDEX,
    ACTIONS,
    FACE_BOX,
    above_mask,
    fields,
    invert,
    landmarks,
    shade_maps,
    shade_weights,
)
from embedded_corpus.skin import bake_skin

UNIT = 0.282  # of the picture's height: 100 mm. Brow to chin is then about a third, hairline to chin 0.52 of the height
PIVOT = np.array([0.0, 0.72, -0.65], np.float32)  # where the head turns, at the top of the neck
TEXTURE = 1.5  # texture pixels for each output pixel: room for one resampling more


@dataclass(frozen=True, slots=True)
class Pose:
    """Head rotation in radians (yaw right, pitch down, roll clockwise), shift in units, scale, gaze in units."""

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    dx: float = 0.0
    dy: float = 0.0
    scale: float = 1.0
    gaze_x: float = 0.0
    gaze_y: float = 0.0

    def matrix(self) -> np.ndarray:
        """(3, 3) rotation."""
        cy, sy, cp, sp, cr, sr = (f(a) for a in (self.yaw, self.pitch, self.roll) for f in (np.cos, np.sin))
        yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        pitch = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
        roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        return (roll @ pitch @ yaw).astype(np.float32)


class Renderer:
    """Draws one speaker at one size. `frame(weights, pose, index)` -> (H, W, 3) uint8 RGB."""

    def __init__(self, person: Identity, width: int = 640, height: int = 360, detail: float = 360.0) -> None:
        """`detail`: pixels a unit at which skin and hair are drawn before they are scaled down."""
        self.person, self.width, self.height = person, width, height
        self.unit = UNIT * height  # output pixels a unit
        self.res = TEXTURE * self.unit
        self.centre = (width / 2, 0.455 * height)  # where the face's origin stands
        self._bake_head(detail)
        self._bake_rig()
        self._bake_inside()
        self._bake_scene()
        self._shade_key: bytes = b""

    # What is drawn once -------------------------------------------------------------------------------------------

    def _bake_head(self, detail: float) -> None:
        p, fine = self.person, max(detail, self.res)
        rgb, alpha, z = bake_skin(p, fine)
        hair, hair_alpha = bake_hair(p, fine)
        glasses = bake_glasses(p, fine)
        size = self._size(HEAD_BOX, self.res)
        rgb, alpha, hair, hair_alpha = (
            cv2.resize(i, size, interpolation=cv2.INTER_AREA) for i in (rgb, alpha, hair, hair_alpha)
        )
        over, over_alpha = hair * hair_alpha[..., None], hair_alpha
        if glasses is not None:
            g, ga = (cv2.resize(i, size, interpolation=cv2.INTER_AREA) for i in glasses)
            over = over * (1 - ga[..., None]) + g * ga[..., None]
            over_alpha = over_alpha + ga - over_alpha * ga
        whole = rgb * alpha[..., None] * (1 - over_alpha)[..., None] + over
        whole_alpha = alpha + over_alpha - alpha * over_alpha
        self.head = to_bytes(np.dstack([whole, whole_alpha]))
        x0, y0 = (round((FACE_BOX[k] - HEAD_BOX[k]) * self.res) for k in (0, 1))
        w, h = self._size(FACE_BOX, self.res)
        self.face_at = (slice(y0, y0 + h), slice(x0, x0 + w))
        self.face_shape = (h, w)
        self.face_rgb = np.ascontiguousarray(rgb[self.face_at]) * 255
        self.face_alpha = to_bytes(alpha[self.face_at])
        self.over = to_bytes(over[self.face_at])
        self.over_keep = to_bytes(np.repeat(1 - over_alpha[self.face_at][..., None], 3, -1))
        self.over_alpha = to_bytes(over_alpha[self.face_at])
        # Depth for turning, smooth enough to be inverted: slopes are held below 2.2.
        coarse = max(2.0, self.unit / 25)
        cz = cv2.resize(z, self._size(HEAD_BOX, self.unit / coarse), interpolation=cv2.INTER_AREA)
        cz = np.maximum(cz, -0.62)
        self.depth = cv2.GaussianBlur(cz, (0, 0), 0.035 * self.unit / coarse)
        self.coarse = coarse

    def _size(self, box: tuple[float, float, float, float], res: float) -> tuple[int, int]:
        return round((box[2] - box[0]) * res), round((box[3] - box[1]) * res)

    def _bake_rig(self) -> None:
        p, (h, w) = self.person, self.face_shape
        step = max(3.0, self.res / 50)
        gx, gy = grid(FACE_BOX, self.res / step)
        self.gx, self.gy = gx, gy
        # The soft border keeps the moving face joined to the head's fixed part.
        border = smoothstep(np.abs(gx), 0.82, 0.70) * smoothstep(gy, -0.80, -0.62)
        self.fields_up, self.fields_low = (
            np.ascontiguousarray((fields(p, gx, gy, above) * border).transpose(0, 2, 3, 1).reshape(len(ACTIONS), -1))
            for above in (True, False)
        )
        fx, fy = grid(FACE_BOX, self.res)
        fx, fy = fx[:h, :w], fy[:h, :w]
        self.above = above_mask(p, fx, fy, self.res)
        self.shades = shade_maps(p, fx, fy).reshape(-1, h * w)
        points, up = landmarks(p)
        both_ways = [fields(p, points[:, 0], points[:, 1], a) for a in (True, False)]
        self.mark_points = points
        self.mark_fields = np.where(up[None, None], *both_ways)
        m, e = mouth_centre(p), p.eye_y
        self.patches = [
            self._patch(-p.mouth_width - 0.10, m - 0.20, p.mouth_width + 0.10, p.chin_y + 0.20),
            self._patch(-p.eye_x - p.eye_width - 0.07, e - 0.22, -p.eye_x + p.eye_width + 0.06, e + 0.16),
            self._patch(p.eye_x - p.eye_width - 0.06, e - 0.22, p.eye_x + p.eye_width + 0.07, e + 0.16),
        ]

    def _patch(self, x0: float, y0: float, x1: float, y1: float) -> tuple[slice, slice]:
        h, w = self.face_shape
        left, top = ((a - b) * self.res for a, b in ((x0, FACE_BOX[0]), (y0, FACE_BOX[1])))
        right, low = ((a - b) * self.res for a, b in ((x1, FACE_BOX[0]), (y1, FACE_BOX[1])))
        return slice(max(0, round(top)), min(h, round(low))), slice(max(0, round(left)), min(w, round(right)))

    def _bake_inside(self) -> None:
        p, (h, w) = self.person, self.face_shape
        x, y = grid(FACE_BOX, self.res)
        x, y = x[:h, :w], y[:h, :w]
        rng = np.random.default_rng(key_seed(p.name, p.seed, "inside"))
        self.inside = to_bytes(bake_behind(p, x, y, rng))
        self.tongue = to_bytes(bake_tongue(p, x[self.patches[0]], y[self.patches[0]], rng))
        self.iris = to_bytes(bake_iris(p, self.res, rng))
        self.glint_radius = 0.011 * self.res

    def _bake_scene(self) -> None:
        p, (w, h) = self.person, (self.width, self.height)
        rgb, alpha, behind, cover = bake_body(p, max(150.0, self.unit))
        size = self._size(BODY_BOX, self.unit)
        rgb, alpha, behind, cover = (
            cv2.resize(i, size, interpolation=cv2.INTER_AREA) for i in (rgb, alpha, behind, cover)
        )
        self.body = to_bytes(np.dstack([rgb * alpha[..., None], alpha]))
        self.behind = to_bytes(np.dstack([behind * cover[..., None], cover])) if cover.any() else None
        y, x = np.mgrid[0:h, 0:w].astype(np.float32)
        fall = 1.06 - 0.42 * (((x - 0.42 * w) / w) ** 2 + 0.8 * ((y - 0.4 * h) / h) ** 2)
        rng = np.random.default_rng(key_seed(p.name, p.seed, "scene"))
        backdrop = np.array([0.33, 0.47, 0.39], np.float32) * (1 + 0.06 * rng.standard_normal(3)).astype(np.float32)
        self.backdrop = np.clip(backdrop * fall[..., None] * 255, 0, 255)
        self.backdrop = (self.backdrop + rng.uniform(-0.5, 0.5, self.backdrop.shape)).clip(0, 255).astype(np.uint8)
        tall, wide = h + 61, w + 97
        noise = rng.standard_normal((tall, wide, 1)) * 0.8 + rng.standard_normal((tall, wide, 3)) * 0.4
        noise = np.rint(noise)
        self.grain = (np.clip(noise, 0, 9).astype(np.uint8), np.clip(-noise, 0, 9).astype(np.uint8))

    # What is drawn for each frame -----------------------------------------------------------------------------------

    def marks(self, weights: np.ndarray) -> np.ndarray:
        """(5, 2) units, in the head's frame: inner lips' middle (upper, lower), corners (left, right), chin."""
        return self.mark_points + np.einsum("k,kdn->nd", weights, self.mark_fields)

    def frame(
        self, weights: np.ndarray, pose: Pose, index: int = 0, background: np.ndarray | None = None
    ) -> np.ndarray:
        """One picture (H, W, 3) uint8 RGB; weights (len(ACTIONS),) float32; index chooses the camera's grain.

        `background`: (H, W, 3) uint8 RGB to draw over; the speaker's own backdrop without it.
        """
        w = np.asarray(weights, np.float32)
        head = self.head
        head[self.face_at] = self._face(w, pose)
        picture = (self.backdrop if background is None else background).copy()
        r = pose.matrix()
        if self.behind is not None:
            self._affine(picture, self.behind, pose.dx + 0.25 * float(r[0, 2]), pose.dy, pose.roll * 0.6)
        self._affine(picture, self.body, 0.30 * pose.dx, 0.30 * pose.dy, 0.0)
        self._turn_head(picture, head, r, pose)
        oy, ox = (index * 37) % 61, (index * 53) % 97
        more, less = (g[oy : oy + self.height, ox : ox + self.width] for g in self.grain)
        cv2.add(picture, more, dst=picture)
        return np.ascontiguousarray(cv2.subtract(picture, less, dst=picture))

    def _face(self, w: np.ndarray, pose: Pose) -> np.ndarray:
        """The moved face (h, w, 4) uint8, premultiplied, hair and glasses over it."""
        source = self._shaded(w)
        up = self._map(self.fields_up, w)
        out = cv2.remap(source, *up, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        low = self._map(self.fields_low, w)
        gaze = (pose.gaze_x, pose.gaze_y)
        for k, (rows, cols) in enumerate(self.patches):
            part = np.ascontiguousarray(out[rows, cols])
            under = cv2.remap(
                source, low[0][rows, cols], low[1][rows, cols], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
            a = part[..., 3].astype(np.float32) * (1 / 255)
            b = 1 - under[..., 3].astype(np.float32) * (1 / 255)
            hole = np.clip(1 - a - b, 0, 1)
            skin = cv2.blendLinear(part, under, a + 1e-4, b + 1e-4)
            behind = self._mouth_inside(w, rows, cols, a) if k == 0 else self._eye_inside(k, rows, cols, gaze, a)
            mixed = cv2.blendLinear(np.ascontiguousarray(skin[..., :3]), behind, 1 - hole, hole)
            out[rows, cols, :3] = mixed
        alpha = self.face_alpha.copy()
        top = round((0.30 - FACE_BOX[1]) * self.res)
        alpha[top:] = cv2.remap(
            self.face_alpha, low[0][top:], low[1][top:], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        rgb = cv2.multiply(cv2.cvtColor(out, cv2.COLOR_RGBA2RGB), self.over_keep, scale=1 / 255)
        rgb = cv2.multiply(rgb, cv2.merge([alpha] * 3), scale=1 / 255)
        rgb = cv2.add(rgb, self.over)
        return cv2.merge([*cv2.split(rgb), cv2.max(alpha, self.over_alpha)])

    def _shaded(self, w: np.ndarray) -> np.ndarray:
        """The texture with this expression's creases; drawn anew only when a weight changes by 1/24."""
        weights = np.rint(shade_weights(w) * 24) / 24
        key = weights.tobytes()
        if key != self._shade_key:
            light = 1 + (weights.astype(np.float32) @ self.shades).reshape(self.face_shape)
            rgb = cv2.multiply(self.face_rgb, cv2.merge([light] * 3))
            self._source = to_bytes(np.dstack([rgb * (1 / 255), self.above]))
            self._shade_key = key
        return self._source

    def _map(self, basis: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fixed-point remap tables (h, w) from weights."""
        h, wide = self.face_shape
        gh, gw = self.gx.shape
        at = invert((w @ basis).reshape(gh, gw, 2), self.gx, self.gy, FACE_BOX, 10)
        pixels = (at - np.array([FACE_BOX[0], FACE_BOX[1]], np.float32)) * np.float32(self.res) - np.float32(0.5)
        return _tables(cv2.resize(pixels, (wide, h), interpolation=cv2.INTER_LINEAR))

    def _eye_inside(self, k: int, rows: slice, cols: slice, gaze: tuple[float, float], a: np.ndarray) -> np.ndarray:
        p = self.person
        behind = self.inside[rows, cols].copy()
        side = -1 if k == 1 else 1
        cx = (side * p.eye_x + gaze[0] - FACE_BOX[0]) * self.res - 0.5 - cols.start
        cy = (p.eye_y - 0.012 * (p.eye_open / 0.09) + gaze[1] - FACE_BOX[1]) * self.res - 0.5 - rows.start
        half = self.iris.shape[0] // 2
        shift = np.array([[1, 0, cx - half], [0, 1, cy - half]], np.float32)
        iris = cv2.warpAffine(self.iris, shift, (behind.shape[1], behind.shape[0]), flags=cv2.INTER_LINEAR)
        _over(behind, iris)
        at = (round((cx - 0.016 * self.res) * 16), round((cy - 0.020 * self.res) * 16))
        cv2.circle(behind, at, max(8, round(self.glint_radius * 16)), (250, 250, 250), -1, cv2.LINE_AA, 4)
        # The upper lid's shadow on the ball.
        down = max(1, round(0.026 * self.res))
        lid = cv2.blur(np.vstack([np.ones((down, a.shape[1]), np.float32), a[:-down]]), (3, down | 1))
        return cv2.multiply(behind, cv2.merge([1 - 0.52 * lid] * 3), dtype=cv2.CV_8U)

    def _mouth_inside(self, w: np.ndarray, rows: slice, cols: slice, a: np.ndarray) -> np.ndarray:
        behind = self.inside[rows, cols].copy()
        open_, jaw = float(w[ACTION_INDEX["open"]]), float(w[ACTION_INDEX["jaw"]])
        lift = float(w[ACTION_INDEX["tuck"]])
        drop = (0.060 * open_ + 0.045 * jaw - 0.01 * lift) * self.res
        shift = np.array([[1, 0, 0], [0, 1, drop]], np.float32)
        tongue = cv2.warpAffine(self.tongue, shift, (behind.shape[1], behind.shape[0]), flags=cv2.INTER_LINEAR)
        _over(behind, tongue)
        down = max(1, round(0.045 * self.res))
        lip = cv2.blur(np.vstack([np.ones((down, a.shape[1]), np.float32), a[:-down]]), (5, down | 1))
        return cv2.multiply(behind, cv2.merge([1 - 0.45 * lip] * 3), dtype=cv2.CV_8U)

    def _affine(self, picture: np.ndarray, layer: np.ndarray, dx: float, dy: float, roll: float) -> None:
        c, s = np.cos(roll), np.sin(roll)
        # Layer pixel -> units -> turned about the pivot -> output pixel.
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
        _over(picture[y0:y1, x0:x1], part)

    def _turn_head(self, picture: np.ndarray, head: np.ndarray, r: np.ndarray, pose: Pose) -> None:
        u, (cx, cy) = self.unit, self.centre
        pad = 0.12
        x0 = max(0, int(cx + (HEAD_BOX[0] - pad + pose.dx) * u))
        x1 = min(self.width, int(cx + (HEAD_BOX[2] + pad + pose.dx) * u))
        y0 = max(0, int(cy + (HEAD_BOX[1] - pad + pose.dy) * u))
        y1 = min(self.height, int(cy + (HEAD_BOX[3] + pad + pose.dy) * u))
        step = self.coarse
        gw, gh = int(np.ceil((x1 - x0) / step)), int(np.ceil((y1 - y0) / step))
        qx = (x0 + (np.arange(gw) + 0.5) * (x1 - x0) / gw - cx) / u
        qy = (y0 + (np.arange(gh) + 0.5) * (y1 - y0) / gh - cy) / u
        gx, gy = np.meshgrid(qx.astype(np.float32), qy.astype(np.float32))
        at = self._untilt(gx, gy, r, pose)
        pixels = (at - np.array([HEAD_BOX[0], HEAD_BOX[1]], np.float32)) * np.float32(self.res) - np.float32(0.5)
        tables = _tables(cv2.resize(pixels, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR))
        _over(picture[y0:y1, x0:x1], cv2.remap(head, *tables, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT))

    def _untilt(self, gx: np.ndarray, gy: np.ndarray, r: np.ndarray, pose: Pose) -> np.ndarray:
        """Head coordinates (h, w, 2) of picture points in units: the turned surface, solved by fixed point."""
        qx = (gx - pose.dx - PIVOT[0]) / pose.scale
        qy = (gy - pose.dy - PIVOT[1]) / pose.scale
        inv = np.linalg.inv(r[:2, :2])
        at = np.dstack([gx, gy])
        sx = self.depth.shape[1] / (HEAD_BOX[2] - HEAD_BOX[0])
        sy = self.depth.shape[0] / (HEAD_BOX[3] - HEAD_BOX[1])
        for _ in range(5):
            mx, my = (at[..., 0] - HEAD_BOX[0]) * sx - 0.5, (at[..., 1] - HEAD_BOX[1]) * sy - 0.5
            z = cv2.remap(self.depth, mx, my, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) - PIVOT[2]
            ax, ay = qx - r[0, 2] * z, qy - r[1, 2] * z
            at = np.dstack([inv[0, 0] * ax + inv[0, 1] * ay + PIVOT[0], inv[1, 0] * ax + inv[1, 1] * ay + PIVOT[1]])
        return at

    def project(self, points: np.ndarray, pose: Pose) -> np.ndarray:
        """(N, 2) output pixels of head points (N, 2) in units; depth is looked up on the surface."""
        sx = self.depth.shape[1] / (HEAD_BOX[2] - HEAD_BOX[0])
        sy = self.depth.shape[0] / (HEAD_BOX[3] - HEAD_BOX[1])
        mx = ((points[:, 0] - HEAD_BOX[0]) * sx - 0.5).astype(np.float32)
        my = ((points[:, 1] - HEAD_BOX[1]) * sy - 0.5).astype(np.float32)
        z = cv2.remap(self.depth, mx[None], my[None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]
        solid = np.column_stack([points, z]) - PIVOT
        turned = (solid @ pose.matrix().T)[:, :2] * pose.scale + PIVOT[:2] + [pose.dx, pose.dy]
        return turned * self.unit + np.array(self.centre)


def _tables(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """OpenCV's fixed-point form of a remap table (h, w, 2) float32: a third faster to apply."""
    no_second: Any = None
    whole, part = cv2.convertMaps(pixels, no_second, cv2.CV_16SC2)
    return np.asarray(whole), np.asarray(part)


def _over(under: np.ndarray, layer: np.ndarray) -> None:
    """Premultiplied RGBA over RGB, in place."""
    r, g, b, a = cv2.split(layer)
    keep = cv2.merge([cv2.bitwise_not(a)] * 3)
    under[:] = cv2.add(cv2.multiply(np.ascontiguousarray(under), keep, scale=1 / 255), cv2.merge([r, g, b]))
