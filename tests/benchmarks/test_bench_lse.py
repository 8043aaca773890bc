"""Speed of LSE on one core against SyncNetInstance.evaluate, on the same crops, sound and weights; face finding apart.

Run with `make bench`; in a plain test run everything is called once, on a short clip.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from scipy.io import wavfile

from cmet_metrics.base import Sample
from cmet_metrics.lse import LipSync, lip_sync, n_windows
from cmet_metrics.syncnet_crops import from_landmarks, whole_frame
from talking_face.media.reading import read_frames
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.syncnet import SyncNet
from talking_face.threads import limit_threads
from tests.syncnet_stand_in import babble, official_form, reference_net, smooth_frames


def test_lse_against_syncnet_python(benchmark, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`evaluate` as it is: it reads its pipeline's JPEG frames and WAV file. Ours gets the decoded arrays."""
    instance = pytest.importorskip("syncnet_python.SyncNetInstance")
    limit_threads(1)
    frames = 75 if benchmark.enabled else 8
    samples = babble(frames * 640, 1)
    for t, frame in enumerate(smooth_frames(frames, 224, 1)):
        cv2.imwrite(str(tmp_path / f"{t:06d}.jpg"), frame, [cv2.IMWRITE_JPEG_QUALITY, 95])
    wavfile.write(tmp_path / "audio.wav", 16000, samples)
    crops = np.stack([cv2.imread(str(path))[..., ::-1] for path in sorted(tmp_path.glob("*.jpg"))])
    options = SimpleNamespace(tmp_dir=str(tmp_path), batch_size=20, vshift=15)
    theirs = instance.SyncNetInstance(reference_net(), device="cpu")
    net = SyncNet(official_form(reference_net()), "stand-in")

    def reference() -> tuple[int, float, float]:
        with contextlib.redirect_stdout(io.StringIO()):
            return theirs.evaluate(options)  # type: ignore[no-any-return]

    def ours() -> LipSync:
        windows = n_windows(len(crops), len(samples))
        return lip_sync(net.lip(crops)[:windows], net.sound(samples, windows))

    offset, confidence, distance = reference()
    result = ours()
    assert result.offset == offset
    assert (result.confidence, result.distance) == pytest.approx((confidence, distance), abs=1e-4)
    rounds = 5 if benchmark.enabled else 1
    taken = [in_turn_s([reference, ours]) for _ in range(rounds)]
    wall, busy = (np.median([[pair[i] for pair in one] for one in taken], axis=0) for i in (0, 1))
    benchmark.pedantic(ours, rounds=1)
    benchmark.extra_info["ratio"] = wall[0] / wall[1]
    with capsys.disabled():
        print(
            f"\nlse {wall[1]:.2f} s for {result.windows} windows, SyncNetInstance.evaluate {wall[0]:.2f} s: "
            f"{wall[0] / wall[1]:.2f} times as fast at the same values ({busy[0] / busy[1]:.2f} in processor time)"
        )
    if benchmark.enabled:
        assert busy[0] / busy[1] >= 1.7  # what else the machine does moves the wall clock's ratio by 0.3


def in_turn_s(functions: list[Callable[[], object]]) -> list[tuple[float, float]]:
    """Seconds of each, called once: on the clock, and of processor time. All of them run on this one thread."""
    out = []
    for function in functions:
        wall, busy = time.perf_counter(), time.thread_time()
        function()
        out.append((time.perf_counter() - wall, time.thread_time() - busy))
    return out


@pytest.mark.parametrize("variant", ["crop", "lm"])
def test_finding_and_cutting_the_face(benchmark, variant: str, real_clips: list[Path]) -> None:
    """What a clip costs before the network; S3FD's part of `track` needs its weights."""
    frames = read_frames(real_clips[0])[: 25 if benchmark.enabled else 3]
    cut = {"crop": whole_frame, "lm": from_landmarks}[variant]
    benchmark.pedantic(lambda: cut(Sample(frames), ModelFiles()), rounds=3 if benchmark.enabled else 1)
    benchmark.extra_info["ms_a_frame"] = 1e3 * benchmark.stats.stats.median / len(frames) if benchmark.enabled else None
