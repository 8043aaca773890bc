"""2D-FAN and its face detector against face-alignment's own code, both holding the same stand-in weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from cmet_metrics.base import Sample
from talking_face.media.reading import read_frames
from talking_face.pretrained import fan, store
from tests.metrics.by_key import by_key
from tests.models import models

torch = pytest.importorskip("torch")

# Frame 20 of two clips. By face-alignment 1.5.0 on torch 2.13.0 with one stack in FAN (four take 20 s) and the weights
# of tests/fan_stand_in.py: the first box of SFDDetector.detect_from_image, and FaceAlignment.get_landmarks in it.
GOLDEN = {
    "bbaf2n": (
        (15.72481370717287, -15.963236443698406, 144.0711119249463, 112.11963403970003),
        [[76, 2], [209, -51], [17, 52], [99, 152]],  # points 0, 30, 48, 67
        86.7867660522461,  # mean of all coordinates
    ),
    "lbbc2a": (
        (15.725023351609707, -15.963294446468353, 144.07110793634627, 112.11971336603165),
        [[111, 2], [209, -51], [17, 52], [130, 154]],
        90.92646789550781,
    ),
}
FRAMES_SHA = "2b6675171c9bc255"


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store with seeded weights of one stack."""
    network = fan.fan_network
    monkeypatch.setattr(fan, "fan_network", lambda: network(1))
    monkeypatch.setenv("CMET_EVAL_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("CMET_EVAL_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(20)
    points, boxes = fan.fan_network(), fan.s3fd_network()
    # Faces of about 128 px only: a random detector would find one everywhere.
    for name in ("conv3_3_norm", "conv4_3_norm", "conv5_3_norm", "fc7", "conv6_2", "conv7_2"):
        getattr(boxes, f"{name}_mbox_conf").bias.data[-1] += 0.5 if name == "fc7" else -9.0
        getattr(boxes, f"{name}_mbox_conf").weight.data *= 5.0
    torch.save(points.state_dict(), tmp_path / store.weight("fan_2d_4").file)
    torch.save(boxes.state_dict(), tmp_path / store.weight("fan_s3fd").file)


@pytest.mark.usefixtures("stand_ins")
def test_points_and_boxes_equal_face_alignment(real_clips: list[Path]) -> None:
    frames = {name: read_frames(real_clips[0].parent / f"{name}.mpg")[20] for name in GOLDEN}
    if hashlib.sha256(b"".join(f.tobytes() for f in frames.values())).hexdigest()[:16] != FRAMES_SHA:
        pytest.skip("this decoder gives other pixels than the one the golden numbers were made with")
    found = {}
    for name, (box, points, mean) in GOLDEN.items():
        np.testing.assert_allclose(fan.face_box(frames[name], files=models()), box, atol=1e-4)
        landmarks = fan.landmarks_fan(frames[name], files=models())
        assert landmarks is not None
        found[name] = landmarks.astype(np.float64)
        assert landmarks[[0, 30, 48, 67]].tolist() == points
        assert landmarks.mean() == pytest.approx(mean, abs=1e-4)
    # vico's number: the mean absolute difference of the mouth's coordinates, as they lie in the frame.
    pair = [Sample(np.stack([frames[name]] * 2)) for name in GOLDEN]
    a, b = (points[48:68] for points in found.values())
    assert by_key("m_lmd:vico").score(*pair).value == pytest.approx(np.abs(a - b).mean(), abs=1e-9)


def test_the_networks_hold_what_the_published_files_hold() -> None:
    """Entries and parameters of face-alignment 1.5.0's FAN(4) and s3fd(), whose names and shapes were the same."""
    with torch.device("meta"):
        networks = fan.fan_network(), fan.s3fd_network()
    counts = [(len(net.state_dict()), sum(p.numel() for p in net.parameters())) for net in networks]
    assert counts == [(1129, 23820176), (65, 22459110)]
