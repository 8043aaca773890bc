"""Draws the textures of one speaker at one picture size: head, hair, eyes, mouth, body and background.

The textures are drawn once. For each frame, `draw.Renderer` and `face.FaceDrawer` deform and combine the textures.
Textures are uint8 RGB. Layers with an alpha channel are premultiplied RGBA.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from embedded_corpus.geometry import HEAD_BOX, grid, mouth_centre, smoothstep
from embedded_corpus.hair import BODY_BOX, bake_body, bake_glasses, bake_hair
from embedded_corpus.identity import Identity, key_seed
from embedded_corpus.inside import bake_behind, bake_iris, bake_tongue, to_bytes
from embedded_corpus.rig import ACTIONS, FACE_BOX, above_mask, fields, landmarks, shade_maps
from embedded_corpus.skin import bake_skin

UNIT = 0.282  # length of 100 mm, as a share of the picture's height; a face then has 0.52 of the picture's height
TEXTURE = 1.5  # texture pixels per output pixel; the value is above 1, because the texture is resampled twice

Area = tuple[slice, slice]  # rows and columns of a texture


@dataclass(frozen=True)
class Scale:
    """Pixels per unit (100 mm) of the picture and of its textures."""

    unit: float  # output pixels per unit
    res: float  # texture pixels per unit

    @classmethod
    def of(cls, height: int) -> Scale:
        """The scale of a picture of `height` px."""
        unit = UNIT * height
        return cls(unit, TEXTURE * unit)


@dataclass(frozen=True)
class HeadTexture:
    """The texture of the head at rest, and the textures of its moving part, the face."""

    whole: np.ndarray  # (H, W, 4) uint8 premultiplied; the area `face_at` is drawn again for each frame
    depth: np.ndarray  # (h, w) float32 units, on a grid with a spacing of `coarse` output pixels
    coarse: float
    face_at: Area  # area of the face in `whole`
    face_rgb: np.ndarray  # (h, w, 3) float32, 0..255
    face_alpha: np.ndarray  # (h, w) uint8
    over: np.ndarray  # (h, w, 3) uint8 premultiplied: hair and glasses over the face
    over_keep: np.ndarray  # (h, w, 3) uint8: share of the skin that is visible through hair and glasses
    over_alpha: np.ndarray  # (h, w) uint8: alpha of hair and glasses

    @property
    def face_shape(self) -> tuple[int, int]:
        """(height, width) of the moving part, texture pixels."""
        return self.face_rgb.shape[0], self.face_rgb.shape[1]


@dataclass(frozen=True)
class FaceRig:
    """Displacements, creases and landmarks of one face, on the grids that `face.FaceDrawer` uses."""

    gx: np.ndarray  # (gh, gw) units: x of the points of the coarse displacement grid
    gy: np.ndarray  # (gh, gw) units: y of the points of the coarse displacement grid
    fields_up: np.ndarray  # (len(ACTIONS), gh * gw * 2): displacements of the skin above the slits
    fields_low: np.ndarray  # (len(ACTIONS), gh * gw * 2): displacements of the skin below the slits
    above: np.ndarray  # (h, w) float32: 1 for skin above a slit
    shades: np.ndarray  # (len(SHADES), h * w): from rig.shade_maps
    mark_points: np.ndarray  # (5, 2) units: the landmarks at rest, from rig.landmarks
    mark_fields: np.ndarray  # (len(ACTIONS), 2, 5): displacements of the landmarks
    patches: tuple[Area, ...]  # areas of the mouth, the left eye and the right eye, in which the slits can open


@dataclass(frozen=True)
class InsideTexture:
    """The parts behind the skin, which are visible when eyes and mouth are open."""

    behind: np.ndarray  # (h, w, 3) uint8: eyeballs, mouth cavity and upper teeth
    tongue: np.ndarray  # (ph, pw, 4) uint8: tongue and lower teeth, in the mouth's patch
    iris: np.ndarray  # (2k+1, 2k+1, 4) uint8


@dataclass(frozen=True)
class Scene:
    """The surroundings of the head: background, body, hair behind the body, and the camera noise."""

    backdrop: np.ndarray  # (H, W, 3) uint8
    body: np.ndarray  # (h, w, 4) uint8
    behind: np.ndarray | None  # (h, w, 4) uint8: long hair behind the body; None for short hair
    grain: tuple[np.ndarray, np.ndarray]  # camera noise, uint8 (H+61, W+97, 3): the added and the subtracted part


def bake_head(person: Identity, scale: Scale, detail: float) -> HeadTexture:
    """The texture of the head. Skin and hair are drawn at `detail` pixels per unit, or finer, and then scaled down."""
    fine = max(detail, scale.res)
    rgb, alpha, z = bake_skin(person, fine)
    hair, hair_alpha = bake_hair(person, fine)
    size = _size(HEAD_BOX, scale.res)
    rgb, alpha, hair, hair_alpha = (_shrink(image, size) for image in (rgb, alpha, hair, hair_alpha))
    over, over_alpha = hair * hair_alpha[..., None], hair_alpha
    glasses = bake_glasses(person, fine)
    if glasses is not None:
        g, ga = (_shrink(image, size) for image in glasses)
        over = over * (1 - ga[..., None]) + g * ga[..., None]
        over_alpha = over_alpha + ga - over_alpha * ga
    whole = rgb * alpha[..., None] * (1 - over_alpha)[..., None] + over
    whole_alpha = alpha + over_alpha - alpha * over_alpha
    x0, y0 = (round((FACE_BOX[k] - HEAD_BOX[k]) * scale.res) for k in (0, 1))
    w, h = _size(FACE_BOX, scale.res)
    face_at = (slice(y0, y0 + h), slice(x0, x0 + w))
    coarse = max(2.0, scale.unit / 25)
    return HeadTexture(
        whole=to_bytes(np.dstack([whole, whole_alpha])),
        depth=_smooth_depth(z, scale.unit, coarse),
        coarse=coarse,
        face_at=face_at,
        face_rgb=np.ascontiguousarray(rgb[face_at]) * 255,
        face_alpha=to_bytes(alpha[face_at]),
        over=to_bytes(over[face_at]),
        over_keep=to_bytes(np.repeat(1 - over_alpha[face_at][..., None], 3, -1)),
        over_alpha=to_bytes(over_alpha[face_at]),
    )


def _smooth_depth(z: np.ndarray, unit: float, coarse: float) -> np.ndarray:
    """The height field on a coarse grid. Its slopes are below 2.2, so that the rotation of the head can be inverted."""
    small = cv2.resize(z, _size(HEAD_BOX, unit / coarse), interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(np.maximum(small, -0.62), (0, 0), 0.035 * unit / coarse)


def bake_rig(person: Identity, scale: Scale, shape: tuple[int, int]) -> FaceRig:
    """The rig of a face. `shape` is the (height, width) of the face's texture in pixels."""
    p, (h, w) = person, shape
    step = max(3.0, scale.res / 50)
    gx, gy = grid(FACE_BOX, scale.res / step)
    # Displacements decrease to 0 at the border, so that the moving face stays joined to the rest of the head.
    border = smoothstep(np.abs(gx), 0.82, 0.70) * smoothstep(gy, -0.80, -0.62)
    fields_up, fields_low = (
        np.ascontiguousarray((fields(p, gx, gy, above) * border).transpose(0, 2, 3, 1).reshape(len(ACTIONS), -1))
        for above in (True, False)
    )
    fx, fy = grid(FACE_BOX, scale.res)
    fx, fy = fx[:h, :w], fy[:h, :w]
    points, up = landmarks(p)
    both_ways = [fields(p, points[:, 0], points[:, 1], above) for above in (True, False)]
    m, e = mouth_centre(p), p.eye_y
    boxes = (
        (-p.mouth_width - 0.10, m - 0.20, p.mouth_width + 0.10, p.chin_y + 0.20),
        (-p.eye_x - p.eye_width - 0.07, e - 0.22, -p.eye_x + p.eye_width + 0.06, e + 0.16),
        (p.eye_x - p.eye_width - 0.06, e - 0.22, p.eye_x + p.eye_width + 0.07, e + 0.16),
    )
    return FaceRig(
        gx=gx,
        gy=gy,
        fields_up=fields_up,
        fields_low=fields_low,
        above=above_mask(p, fx, fy, scale.res),
        shades=shade_maps(p, fx, fy).reshape(-1, h * w),
        mark_points=points,
        mark_fields=np.where(up[None, None], *both_ways),
        patches=tuple(_patch(box, scale.res, shape) for box in boxes),
    )


def _patch(box: tuple[float, float, float, float], res: float, shape: tuple[int, int]) -> Area:
    """The rows and columns of the face's texture that are inside `box`, which is given in units."""
    left, top = ((box[k] - FACE_BOX[k]) * res for k in (0, 1))
    right, low = ((box[k + 2] - FACE_BOX[k]) * res for k in (0, 1))
    h, w = shape
    return slice(max(0, round(top)), min(h, round(low))), slice(max(0, round(left)), min(w, round(right)))


def bake_inside(person: Identity, scale: Scale, shape: tuple[int, int], mouth: Area) -> InsideTexture:
    """The textures of the parts behind the skin. `mouth` is the first of `FaceRig.patches`."""
    h, w = shape
    x, y = grid(FACE_BOX, scale.res)
    x, y = x[:h, :w], y[:h, :w]
    rng = np.random.default_rng(key_seed(person.name, person.seed, "inside"))
    return InsideTexture(
        behind=to_bytes(bake_behind(person, x, y, rng)),
        tongue=to_bytes(bake_tongue(person, x[mouth], y[mouth], rng)),
        iris=to_bytes(bake_iris(person, scale.res, rng)),
    )


def bake_scene(person: Identity, unit: float, width: int, height: int) -> Scene:
    """Body and background of a picture of `width` x `height` px."""
    rgb, alpha, behind, cover = bake_body(person, max(150.0, unit))
    size = _size(BODY_BOX, unit)
    rgb, alpha, behind, cover = (_shrink(image, size) for image in (rgb, alpha, behind, cover))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    fall = 1.06 - 0.42 * (((x - 0.42 * width) / width) ** 2 + 0.8 * ((y - 0.4 * height) / height) ** 2)
    rng = np.random.default_rng(key_seed(person.name, person.seed, "scene"))
    colour = np.array([0.33, 0.47, 0.39], np.float32) * (1 + 0.06 * rng.standard_normal(3)).astype(np.float32)
    backdrop = np.clip(colour * fall[..., None] * 255, 0, 255)
    backdrop = (backdrop + rng.uniform(-0.5, 0.5, backdrop.shape)).clip(0, 255).astype(np.uint8)
    tall, wide = height + 61, width + 97
    noise = rng.standard_normal((tall, wide, 1)) * 0.8 + rng.standard_normal((tall, wide, 3)) * 0.4
    noise = np.rint(noise)
    return Scene(
        backdrop=backdrop,
        body=to_bytes(np.dstack([rgb * alpha[..., None], alpha])),
        behind=to_bytes(np.dstack([behind * cover[..., None], cover])) if cover.any() else None,
        grain=(np.clip(noise, 0, 9).astype(np.uint8), np.clip(-noise, 0, 9).astype(np.uint8)),
    )


def _size(box: tuple[float, float, float, float], res: float) -> tuple[int, int]:
    """(width, height) px of a box in units."""
    return round((box[2] - box[0]) * res), round((box[3] - box[1]) * res)


def _shrink(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
