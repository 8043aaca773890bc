"""The mesh renderer on drawn faces: what should stay stays, what should move moves by as much, mouths open and shut."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from cmet_reference.render.mesh import MeshRenderer
from cmet_reference.render.mesh_settings import MeshSettings
from cmet_reference.render.openings import cheapest_path, opening_size
from cmet_reference.render.triangles import (
    HOLES,
    MOUTH,
    N_SKIN,
    Barycentric,
    back_to_front,
    draw,
    skin_triangles,
    under_triangles,
)
from embedded_corpus.draw import Renderer
from embedded_corpus.identity import get_identity
from embedded_corpus.pose import Pose
from embedded_corpus.rig import ACTION_INDEX, ACTIONS
from talking_face.pretrained.face_landmarker import FaceLandmarker
from tests.models import models

Face = tuple[np.ndarray, np.ndarray]  # (256, 256, 3) uint8 RGB and its (478, 3) px


def found(frame: np.ndarray) -> np.ndarray:
    with FaceLandmarker("image", files=models()) as landmarker:
        mesh = landmarker.detect(frame)
    assert mesh is not None
    return mesh.landmarks


def lips_apart(landmarks: np.ndarray) -> float:
    return float(np.linalg.norm(landmarks[13, :2] - landmarks[14, :2]))


@pytest.fixture(scope="module")
def faces() -> dict[str, Face]:
    """One person with a shut mouth, an open one, and shut eyes."""
    artist = Renderer(get_identity("M903"), 360, 256, detail=200)
    out = {}
    for name, opening, eyes in (("shut", 0.0, 1.0), ("open", 1.8, 1.0), ("blink", 0.0, 0.0)):
        weights = np.zeros(len(ACTIONS), np.float32)
        weights[[ACTION_INDEX["eye_l"], ACTION_INDEX["eye_r"]]] = eyes
        weights[[ACTION_INDEX["open"], ACTION_INDEX["jaw"]]] = opening, 0.85 * opening
        frame = np.ascontiguousarray(artist.frame(weights, Pose())[:, 52:308])
        out[name] = (frame, found(frame))
    return out


def render(target: np.ndarray, *references: Face, base: Face | None = None) -> np.ndarray:
    frames, points = (np.stack(part) for part in zip(*references, strict=True))
    given = (base[0][None], base[1][None]) if base else (None, None)
    return MeshRenderer().frames(target[None], frames, points, *given)[0]


def test_a_face_at_its_own_landmarks_is_the_picture(faces: dict[str, Face]) -> None:
    for frame, points in faces.values():
        gap = np.abs(render(points, (frame, points)).astype(int) - frame)
        assert gap.max() <= 2, gap.max()  # rounding of positions to 1/16 px and back


def test_a_shifted_head_shifts_the_face_and_leaves_the_corners(faces: dict[str, Face]) -> None:
    frame, points = faces["shut"]
    out = render(points + np.float32([4, -3, 0]), (frame, points))
    x, y = points[4, :2].astype(int)
    before = frame[y - 20 : y + 20, x - 20 : x + 20].astype(int)
    after = out[y - 23 : y + 17, x - 16 : x + 24].astype(int)
    assert np.abs(before - after).mean() < 1
    np.testing.assert_array_equal(out[:8], frame[:8])
    np.testing.assert_array_equal(out[-8:], frame[-8:])


def test_no_cracks_and_no_folds_show_on_a_plain_face(faces: dict[str, Face]) -> None:
    """Whatever the mesh does, a picture of one colour stays one; also where the motion is absurd."""
    points = faces["open"][1]
    plain = np.full((256, 256, 3), (180, 120, 90), np.uint8)
    rng = np.random.default_rng(0)
    targets = np.stack([points + rng.normal(0, s, points.shape).astype(np.float32) for s in (1.0, 5.0, 20.0)])
    out = MeshRenderer(MeshSettings(drawn=1e9)).frames(targets, plain[None], points[None])
    assert (out == plain).all()


def test_a_mouth_that_opens_shows_what_a_reference_shows_inside(faces: dict[str, Face]) -> None:
    shut, opened = faces["shut"], faces["open"]
    target = opened[1]
    out = render(target, shut, opened, base=shut)
    assert lips_apart(found(out)) > 0.8 * lips_apart(target) > 5 * lips_apart(shut[1])
    edge = target[[*HOLES[MOUTH].upper, *HOLES[MOUTH].lower]]
    x, y = edge[:, 0].mean().astype(int), edge[:, 1].mean().astype(int)
    true, made = (p[y - 3 : y + 4, x - 8 : x + 9].astype(int) for p in (opened[0], out))
    assert np.abs(true - made).mean() < 25 < np.abs(shut[0][y - 3 : y + 4, x - 8 : x + 9].astype(int) - true).mean()
    # And back: the same mouth shuts over its teeth.
    assert lips_apart(found(render(shut[1], shut, opened, base=opened))) < 0.25 * lips_apart(target)


def test_a_mouth_nobody_has_seen_open_is_drawn_dark(faces: dict[str, Face]) -> None:
    shut, target = faces["shut"], faces["open"][1]
    out = render(target, shut)
    x, y = target[[13, 14], :2].mean(0).astype(int)
    assert out[y, x - 4 : x + 5].mean() < 0.6 * shut[0][y - 60, x - 30 : x + 31].mean()
    assert lips_apart(found(out)) > 0.7 * lips_apart(target)


def test_shut_eyes_open_with_the_references_eyes(faces: dict[str, Face]) -> None:
    blink, awake = faces["blink"], faces["shut"]
    out = found(render(awake[1], awake, base=blink))
    wide, shown, asleep = (opening_size(HOLES[1], p[None])[0, 0] for p in (awake[1], out, blink[1]))
    assert asleep < 0.5 * wide and shown > 0.8 * wide


def test_lengths_that_differ_are_refused(faces: dict[str, Face]) -> None:
    frame, points = faces["shut"]
    with pytest.raises(ValueError, match="2 landmark sets, 1 base frames"):
        MeshRenderer().frames(np.stack([points] * 2), frame[None], points[None], frame[None], points[None])
    with pytest.raises(ValueError, match="come together"):
        MeshRenderer().frames(points[None], frame[None], points[None], frame[None])


def test_cheapest_path_equals_trying_all() -> None:
    costs = np.random.default_rng(1).random((6, 3))

    def total(path: tuple[int, ...]) -> float:
        return sum(costs[t, k] for t, k in enumerate(path)) + 0.3 * sum(a != b for a, b in itertools.pairwise(path))

    best = min(itertools.product(range(3), repeat=6), key=total)
    assert tuple(cheapest_path(costs, 0.3)) == best


def test_barycentric_places_by_hand() -> None:
    triangle = np.array([[[0, 0], [4, 0], [0, 4]]], np.float32)
    other = np.array([[[10, 10], [10, 18], [18, 10]]], np.float32)
    for point, place in (((1, 2), (14, 12)), ((0, 0), (10, 10)), ((-1, 1), (11, 10)), ((4, 4), (16, 16))):
        inside = Barycentric.of(np.array([point], np.float32), triangle, np.array([0]))
        np.testing.assert_allclose(inside.placed(other)[:, 0], place)


def test_the_skins_pixels_in_the_whole_mesh_are_those_of_the_skin_alone(faces: dict[str, Face]) -> None:
    """The renderer draws the mesh once, for the motion and for the light."""
    face = faces["open"][1][:N_SKIN]
    mesh = np.concatenate([face[:, :2], np.random.default_rng(2).uniform(0, 255, (72, 2)).astype(np.float32)])
    order = back_to_front(face)
    assert sorted(order.tolist()) == sorted(skin_triangles().tolist())
    both = draw(mesh, np.concatenate([under_triangles(), order]), 256, 256).after(len(under_triangles()))
    alone = draw(face[:, :2], order, 256, 256)
    assert len(alone.y) > 5_000
    for a, b in zip(both, alone, strict=True):
        np.testing.assert_array_equal(a, b)
