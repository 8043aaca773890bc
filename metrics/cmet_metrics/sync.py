"""Defines the base class of lip-sync metrics, which compare the mouth with the driving sound."""

from __future__ import annotations

from dataclasses import dataclass

from cmet_metrics.base import Metric


@dataclass(frozen=True, kw_only=True)
class SyncMetric(Metric):
    """A metric of how well mouth and sound agree, or of their offset in frames (`measures_offset`)."""

    needs_audio = True

    @property
    def unit(self) -> str:
        return "frames" if self.measures_offset else ""

    @property
    def worsened_by(self) -> frozenset[str]:
        return frozenset({"sound-shift"} if self.measures_offset else {"mouth-frozen"})

    @property
    def unchanged_by(self) -> frozenset[str]:
        always = {"reencode", "move", "codec"}
        return frozenset(always | ({"blur", "jpeg", "emotion-swap"} if self.measures_offset else {"sound-shift"}))
