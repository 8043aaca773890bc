"""Evaluator profiles: every metric stands in one or both, and what is called embedded needs no download."""

from __future__ import annotations

import pytest

from cmet_metrics.registry import METRICS, common_profile, in_profile, profile_of
from talking_face.reasons import UserError

ENDS = ("corpus", "dlib", "dlib-ref", "fer", "fer-video")


def test_every_metric_stands_in_a_profile() -> None:
    assert {*in_profile("embedded"), *in_profile("paper")} == {metric.key for metric in METRICS}
    assert profile_of("psnr:frame-mean") is None and profile_of("m_lmd:eat") is None
    for metric in METRICS:
        if metric.variant in ENDS:
            assert profile_of(metric.key) == "embedded", metric.key


def test_embedded_metrics_name_no_absent_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """With nothing fetched, only what is trained on the corpus is absent from the embedded profile's signatures."""
    monkeypatch.delenv("CMET_EVAL_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    absent = {m.key for m in METRICS if "absent" in str(m.signature())} & set(in_profile("embedded"))
    assert all(key.endswith(":corpus") for key in absent), absent


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
