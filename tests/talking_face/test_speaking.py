"""Of several people the one who speaks is taken, on real people; one alone costs nothing."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from talking_face.faces.speaking import Choice, choose_speaker, mouth_motion, sound_bands
from talking_face.faces.track import FaceTrack, search_window, track_face
from talking_face.media import ArrayPicture, read_audio, read_frames
from talking_face.pretrained.dlib_models import Box
from tests.models import models


@pytest.fixture(scope="module")
def spoken(real_clips: list[Path]) -> list[tuple[np.ndarray, FaceTrack, np.ndarray]]:
    """(frames, track, sound) of four people."""
    out = []
    for clip in real_clips[::3]:
        frames = read_frames(clip)
        out.append((frames, track_face(map(ArrayPicture, frames), files=models()), read_audio(clip)))
    return out


def test_the_mouth_that_goes_with_the_sound(spoken: list[tuple[np.ndarray, FaceTrack, np.ndarray]]) -> None:
    """All ordered pairs, both talking; the table saw none of these people."""
    for (_, a, sound), (_, b, _) in itertools.permutations(spoken, 2):
        choice = choose_speaker([b.landmarks, a.landmarks], [b.valid, a.valid], sound)
        assert choice.index == 1 and choice.how == "speaking" and choice.margin is not None and choice.margin > 0


def test_what_decides_where_the_sound_does_not(spoken: list[tuple[np.ndarray, FaceTrack, np.ndarray]]) -> None:
    (_, a, sound), (_, b, _) = spoken[:2]
    both, seen = [a.landmarks, b.landmarks], [a.valid, b.valid]
    assert choose_speaker(both, seen, None) == Choice(0, "largest", None)
    silence = choose_speaker(both, seen, np.zeros(48000, np.int16))
    assert silence.index == 0 and silence.how == "largest"
    assert choose_speaker([], [], sound) == Choice(0, "only", None)
    hidden = np.zeros_like(b.valid)
    assert choose_speaker([b.landmarks, a.landmarks], [hidden, a.valid], sound) == Choice(1, "only", None)
    # A face that is gone for a while still counts by what was seen of it.
    gaps, half = a.landmarks.copy(), a.valid.copy()
    half[30:50] = False
    gaps[~half] = np.nan
    assert np.isfinite(mouth_motion(gaps, half)).all()
    assert choose_speaker([b.landmarks, gaps], [b.valid, half], sound).index == 1


def test_other_rates_and_short_sound(spoken: list[tuple[np.ndarray, FaceTrack, np.ndarray]]) -> None:
    (_, a, sound), (_, b, _) = spoken[:2]
    twice = [np.repeat(t.landmarks, 2, axis=0) for t in (b, a)]
    assert choose_speaker(twice, [np.repeat(t.valid, 2) for t in (b, a)], sound, fps=50).index == 1
    assert sound_bands(np.zeros(0, np.int16), 20).shape == (20, 10)
    assert choose_speaker([b.landmarks[:4], a.landmarks[:4]], [b.valid[:4], a.valid[:4]], sound[:100]).how == "largest"


def test_tracking_takes_the_speaker_of_a_two_person_picture(
    spoken: list[tuple[np.ndarray, FaceTrack, np.ndarray]],
) -> None:
    (frames, alone, sound), (other, _, _) = spoken[1], spoken[2]
    both = [ArrayPicture(np.hstack([o, f])) for o, f in zip(other[:50], frames[:50], strict=True)]
    asked = []
    track = track_face(both, sound=lambda: asked.append(1) or sound, files=models())  # type: ignore[func-returns-value]
    assert track.n_faces == 2 and track.choice.how == "speaking" and track.valid.all() and asked
    assert np.abs(track.landmarks[..., 0] - other.shape[2] - alone.landmarks[:50, :, 0]).mean() < 2
    unheard = track_face(both, files=models())
    assert unheard.choice.how == "largest" and unheard.n_faces == 2


def test_a_speaker_who_comes_later_is_considered(spoken: list[tuple[np.ndarray, FaceTrack, np.ndarray]]) -> None:
    (frames, alone, sound), (other, _, _) = spoken[1], spoken[2]
    late = frames.copy()
    late[:22] = 60  # an empty half of the picture for 0.9 s
    both = [ArrayPicture(np.hstack([o, f])) for o, f in zip(other, late, strict=True)]
    track = track_face(both, sound=lambda: sound, files=models())
    assert track.n_faces == 2 and track.choice.how == "speaking"
    assert not track.valid[:22].any() and track.valid[25:].all()
    assert np.abs(track.landmarks[25:, :, 0] - other.shape[2] - alone.landmarks[25:, :, 0]).mean() < 2


def test_a_long_clip_is_decided_on_the_way_and_lost_faces_are_taken_up_again(
    spoken: list[tuple[np.ndarray, FaceTrack, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("talking_face.faces.track.DECIDE_S", 2.0)
    (frames, alone, sound), (other, _, _) = spoken[1], spoken[2]
    both = np.concatenate([other, frames], axis=2)
    both[10:13, :, 360:] = 0  # the speaker is gone for a while before it is decided
    both[60:63] = 0  # and everybody after
    windows = []
    track = track_face(
        map(ArrayPicture, both),
        sound=lambda: sound,
        on_picture=lambda _, window: windows.append(window),
        files=models(),
    )
    assert track.choice.how == "speaking" and len(track) == 75
    seen = np.flatnonzero(~track.valid)
    assert {10, 11, 12, 60, 61, 62} <= set(seen) and len(seen) <= 10
    assert np.abs(track.landmarks[track.valid, :, 0] - 360 - alone.landmarks[track.valid, :, 0]).mean() < 2
    assert windows[:50] == [None] * 50 and None not in windows[50:]


def test_one_person_needs_no_sound(spoken: list[tuple[np.ndarray, FaceTrack, np.ndarray]]) -> None:
    def sound() -> np.ndarray:
        raise AssertionError("the sound of a clip with one face was read")

    track = track_face(map(ArrayPicture, spoken[0][0][:10]), sound=sound, files=models())
    assert track.choice == Choice(0, "only", None) and track.n_faces == 1


def test_a_window_beside_another_face_leaves_its_middle_out() -> None:
    box, near, far = Box(100, 100, 200, 200), Box(215, 100, 315, 200), Box(600, 100, 700, 200)
    assert search_window(box) == search_window(box, [box, far])
    left, _, right, _ = search_window(box, [box, near])
    assert right < 265 and right - left >= 150
