"""Noise bands of metrics: how much re-encoding a video, or moving its crop by a pixel, changes a value."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

from talking_face.reasons import UserError
from talking_face.signature import digest

_CALIBRATION = Path(__file__).parents[2] / "docs" / "experiments" / "calibration" / "bands.csv"


@dataclass(frozen=True)
class Bands:
    """Metric signature -> band, in the metric's unit. `about` names the file that they are from."""

    by_signature: dict[str, float] = field(default_factory=dict)
    about: str = ""

    def of(self, signature: str) -> float:
        """The band; 0 for an unknown signature, so that every difference counts."""
        return self.by_signature.get(signature, 0.0)


def known_bands() -> Path | None:
    """The calibration in the source tree; None in an installation without it."""
    return _CALIBRATION if _CALIBRATION.is_file() else None


def load_bands(path: Path | None = None, source: str | None = None) -> Bands | None:
    """Bands from a file; without a path from the source tree, or None where it has no calibration.

    Raises:
        UserError: as `read_bands`.
    """
    path = path or known_bands()
    return read_bands(path, source) if path else None


def read_bands(path: Path, source: str | None = None) -> Bands:
    """Bands from the CSV that `cmet-eval calibrate` writes: columns signature, source and band.

    Args:
        path: the file.
        source: the clips of the calibration, such as `embedded`; None takes the largest band over all sources.

    Raises:
        UserError: the file cannot be read, or has no band of that source.
    """
    if not path.is_file():
        raise UserError(f"no file {path} of noise bands; `cmet-eval calibrate` writes one")
    try:
        text = path.read_text(encoding="utf-8")
        rows = list(csv.DictReader(text.splitlines()))
        found: dict[str, float] = {}
        for row in rows:
            if source not in (None, row["source"]):
                continue
            found[row["signature"]] = max(found.get(row["signature"], 0.0), float(row["band"]))
    except (OSError, UnicodeDecodeError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} does not hold noise bands (columns signature, source, band): {error!r}") from error
    if not found:
        raise UserError(f"{path} has no noise band" + (f" of the source {source!r}" if source else ""))
    return Bands(found, f"{path.name} {digest(text.encode(), 8)}" + (f", source {source}" if source else ""))
