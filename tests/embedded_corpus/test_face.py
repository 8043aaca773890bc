"""The drawn face shows what its ground truth states, and its parts follow their actions."""

from __future__ import annotations

import numpy as np
import pytest

from embedded_corpus.clip import ClipSpec, render_clip
from embedded_corpus.draw import Renderer
from embedded_corpus.expression import LEVELS, weight_track
from embedded_corpus.geometry import grid, mouth_centre
from embedded_corpus.identity import RANGES, STYLES, distance, get_identity, sample_identity, speaker_names
from embedded_corpus.pose import Pose
from embedded_corpus.rig import ACTION_INDEX, ACTIONS, FACE_BOX, above_mask, fields, invert
from embedded_corpus.speech import MOUTH
from talking_face.emotions import EMOTIONS


@pytest.fixture(scope="module")
def artist() -> Renderer:
    return Renderer(get_identity("W901"), 320, 180, detail=150)


def rest(**weights: float) -> np.ndarray:
    out = np.zeros(len(ACTIONS), np.float32)
    out[[ACTION_INDEX["eye_l"], ACTION_INDEX["eye_r"]]] = 1
    for name, value in weights.items():
        out[ACTION_INDEX[name]] = value
    return out


@pytest.mark.parametrize("opening", [0.0, 0.4, 1.0, 2.0])
def test_gap_between_the_layers_is_the_true_opening(opening: float) -> None:
    """Walk down the face's axis through both inverted layers and count what neither covers."""
    person, res = get_identity("M901"), 100.0
    x, y = grid(FACE_BOX, res)
    weights = rest(open=opening, jaw=0.85 * opening)
    covered = np.zeros(x.shape[0])
    column = x.shape[1] // 2
    for above in (True, False):
        field = np.einsum("k,kdhw->hwd", weights, fields(person, x, y, above)).astype(np.float32)
        at = invert(field, x, y, FACE_BOX, 12)[:, column : column + 1]
        mask = above_mask(person, at[..., 0], at[..., 1], res)[:, 0]
        covered += mask if above else 1 - mask
    middle = np.abs(y[:, column] - mouth_centre(person) - 0.04 * opening) < 0.3
    gap = np.clip(1 - covered[middle], 0, None).sum() / res
    assert gap == pytest.approx(0.1 * opening, abs=0.012)


def test_layers_agree_away_from_lips_and_lids() -> None:
    person = get_identity("M901")
    points = np.array([[0.0, -0.45], [0.5, 0.5], [0.0, 0.13], [-0.55, 0.1], [0.45, mouth_centre(person)]], np.float32)
    up, low = (fields(person, points[:, 0], points[:, 1], above) for above in (True, False))
    np.testing.assert_allclose(up, low, atol=0.004)


def test_marks_follow_actions(artist: Renderer) -> None:
    neutral, smile = artist.marks(rest()), artist.marks(rest(corner_up_l=1, corner_up_r=1))
    assert (neutral[2:4, 1] - smile[2:4, 1] > 0.05).all()  # corners up by 5 mm and more
    frown = artist.marks(rest(corner_down_l=1))
    assert frown[2, 1] - neutral[2, 1] > 0.03 and abs(frown[3, 1] - neutral[3, 1]) < 0.005
    opened = artist.marks(rest(open=1.5, jaw=1.2))
    assert opened[4, 1] - neutral[4, 1] > 0.08  # the chin drops


def test_picture_changes_where_the_action_is_and_nowhere_else(artist: Renderer) -> None:
    before, after = (artist.frame(rest(open=o), Pose()).astype(int) for o in (0.0, 1.5))
    rows = np.nonzero((np.abs(before - after).max(-1) > 12).any(1))[0]
    top, bottom = artist.project(np.array([[0, 0.2], [0, 1.3]], np.float32), Pose())[:, 1]
    assert len(rows) > 5 and rows.min() > top - 2 and rows.max() < bottom + 2


def test_turning_moves_the_nose_before_the_cheeks(artist: Renderer) -> None:
    points = np.array([[0.0, 0.25], [0.55, 0.25]], np.float32)
    straight, turned = (artist.project(points, Pose(yaw=a)) for a in (0.0, 0.15))
    shift = turned - straight
    assert shift[0, 0] > shift[1, 0] + 2  # parallax: the nose lies nearer


def test_every_emotion_and_level_gives_its_own_face() -> None:
    person = get_identity("M901")
    still = np.zeros((1, len(MOUTH)), np.float32)
    faces = {
        (e, k): weight_track(person, e, np.full(1, LEVELS[k], np.float32), still, np.zeros(1, np.float32))[0]
        for e in EMOTIONS
        for k in ((1,) if e == "neutral" else (1, 2, 3))
    }
    names = list(faces)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert np.abs(faces[a] - faces[b]).max() > 0.1, (a, b)
    contempt = faces["contempt", 3]
    assert abs(contempt[ACTION_INDEX["corner_up_l"]] - contempt[ACTION_INDEX["corner_up_r"]]) > 0.5


def test_identities_come_from_the_table_and_stay_apart() -> None:
    people = [get_identity(n) for n in speaker_names(12)]
    for person in people:
        assert set(person.values) == set(RANGES) and set(person.styles) == set(STYLES)
    gaps = [distance(a, b) for i, a in enumerate(people) for b in people[i + 1 :]]
    assert min(gaps) > 0.3
    assert sample_identity("M999", 5) == sample_identity("M999", 5)


def test_clip_is_a_pure_function_of_its_key() -> None:
    spec = ClipSpec("W901", "happy", 3, 1, ("s02",), seconds=1.0, width=320, height=180)
    first, again, other = (render_clip(s) for s in (spec, spec, ClipSpec(**{**_fields(spec), "seed": 1})))
    assert first[2] == again[2] and first[2] != other[2]
    np.testing.assert_array_equal(first[1], again[1])
    frames = [list(f) for f, _, _ in (first, again)]
    assert len(frames[0]) == 30 and frames[0][0].shape == (180, 320, 3) and frames[0][0].dtype == np.uint8
    assert all(f.flags.c_contiguous for f in frames[0])
    np.testing.assert_array_equal(frames[0], frames[1])
    assert len(first[1]) == 48_000 and first[1].dtype == np.int16


def _fields(spec: ClipSpec) -> dict:
    return {name: getattr(spec, name) for name in ClipSpec.__slots__}
