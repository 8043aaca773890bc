"""Every metric by its key, `name:variant`; a bare name is its default variant."""

from __future__ import annotations

import difflib

from metrics.base import Metric
from metrics.corpus import CORPUS_METRICS
from metrics.csim import CSIM_METRICS
from metrics.emotion import EMOTION_METRICS
from metrics.fid import PairFid
from metrics.jitter import Jitter, JitterRatio
from metrics.lip_energy import LipEnergy, LipEnergyOffset
from metrics.lmd import (
    FaceLmd,
    FaceLmdMediaPipe,
    FaceLmdNative,
    MouthLmd,
    MouthLmdAtvgnet,
    MouthLmdMediaPipe,
    MouthLmdNative,
    MouthLmdVico,
)
from metrics.lse import LSE_METRICS
from metrics.psnr import LowerHalfPsnr, MouthPsnr, PooledLowerHalfPsnr, PooledMouthPsnr, PooledPsnr, Psnr
from metrics.registration import Registration, RotationRegistration, ScaleRegistration
from metrics.ssim import BoxSsim, LumaSsim, Ssim, TorchmetricsSsim
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
)

DEFAULT_METRICS: tuple[str, ...] = ("psnr:frame-mean", "ssim:wang2004", "m_lmd:eat", "f_lmd:eat")


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
