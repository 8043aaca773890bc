"""Every metric by its key, `name:variant`; a bare name is its default variant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Literal, get_args

from cmet_metrics.base import Metric
from cmet_metrics.corpus import CORPUS_METRICS
from cmet_metrics.csim import CSIM_METRICS
from cmet_metrics.emotion import EMOTION_METRICS
from cmet_metrics.fid import PairFid
from cmet_metrics.fvd import PairFvd
from cmet_metrics.jitter import Jitter, JitterRatio
from cmet_metrics.lip_energy import LipEnergy, LipEnergyOffset
from cmet_metrics.lmd import (
    FaceLmd,
    FaceLmdMediaPipe,
    FaceLmdNative,
    MouthLmd,
    MouthLmdAtvgnet,
    MouthLmdMediaPipe,
    MouthLmdNative,
    MouthLmdVico,
)
from cmet_metrics.lse import LSE_METRICS
from cmet_metrics.perceptual import Lpips
from cmet_metrics.psnr import LowerHalfPsnr, MouthPsnr, PooledLowerHalfPsnr, PooledMouthPsnr, PooledPsnr, Psnr
from cmet_metrics.registration import Registration, RotationRegistration, ScaleRegistration
from cmet_metrics.ssim import BoxSsim, LumaSsim, Ssim, TorchmetricsSsim
from talking_face.reasons import UserError

# The first variant of a name is its default.
METRICS: tuple[Metric, ...] = (
    Psnr(),
    PooledPsnr(),
    LowerHalfPsnr(),
    MouthPsnr(),
    PooledLowerHalfPsnr(),
    PooledMouthPsnr(),
    Ssim(),
    BoxSsim(),
    LumaSsim(),
    TorchmetricsSsim(),
    MouthLmd(),
    MouthLmdAtvgnet(),
    MouthLmdVico(),
    MouthLmdMediaPipe(),
    MouthLmdNative(),
    FaceLmd(),
    FaceLmdMediaPipe(),
    FaceLmdNative(),
    Registration(),
    ScaleRegistration(),
    RotationRegistration(),
    Jitter(),
    JitterRatio(),
    LipEnergy(),
    LipEnergyOffset(),
    *LSE_METRICS,
    *CSIM_METRICS,
    *EMOTION_METRICS,
    *CORPUS_METRICS,
    PairFid(),
    PairFvd(),
    Lpips(),
)

DEFAULT_METRICS: tuple[str, ...] = ("psnr:frame-mean", "ssim:wang2004", "m_lmd:eat", "f_lmd:eat")

Profile = Literal["embedded", "paper"]
PROFILES: tuple[Profile, ...] = get_args(Profile)
# Beginnings of the keys that stand in one profile only. `embedded`: networks out of distributions of the package index,
# or trained on the corpus. `paper`: networks that are fetched, or that their authors hand out. What needs no network,
# and landmarks by dlib and MediaPipe, stand in both.
_ONLY_IN: dict[Profile, tuple[str, ...]] = {
    "embedded": (
        *("lse_c:corpus", "lse_d:corpus", "lse_offset:corpus", "ea:corpus", "ea:fer"),
        *("emotion_leak:corpus", "emotion_leak:fer", "csim:dlib"),
    ),
    "paper": ("lse_", "m_lmd:vico", "csim:aligned", "csim:vico", "ea:", "emotion_leak:", "fid:", "fvd:", "lpips:"),
}


def profile_of(key: str) -> Profile | None:
    """The only profile that the metric called `key` stands in; None where it stands in both."""
    return next((profile for profile in PROFILES if key.startswith(_ONLY_IN[profile])), None)


def in_profile(profile: Profile) -> tuple[str, ...]:
    """Keys of all metrics of a profile."""
    return tuple(metric.key for metric in METRICS if profile_of(metric.key) in (None, profile))


def common_profile(keys: Iterable[str], profile: Profile | None = None) -> Profile:
    """The profile that all these metrics stand in; the one asked for, or `embedded`, where both would do.

    Raises:
        UserError: one metric stands in the embedded profile only and another, or what was asked for, is paper.
    """
    only = {found: key for key in keys if (found := profile_of(key))} | ({profile: ""} if profile else {})
    if len(only) > 1:
        names = {name: key or "what --profile says" for name, key in only.items()}
        raise UserError(
            f"{names['embedded']} is of the embedded profile and {names['paper']} of paper, and one board never "
            "shows both; score them in two runs"
        )
    return next(iter(only), "embedded")


def get_metric(key: str) -> Metric:
    """The metric called `key`: `ssim:wang2004`, or `ssim` for its default variant.

    Raises:
        UserError: no such metric; the message names near ones, or all.
    """
    by_key: dict[str, Metric] = {}
    for metric in METRICS:
        by_key[metric.key] = metric
        by_key.setdefault(metric.name, metric)
    if key in by_key:
        return by_key[key]
    near = difflib.get_close_matches(key.lower().replace("-", "_"), by_key, n=3) or [
        metric.key for metric in METRICS if metric.name == key.partition(":")[0]
    ]
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(m.key for m in METRICS)}"
    raise UserError(f"no metric is called {key!r}; {hint}")
