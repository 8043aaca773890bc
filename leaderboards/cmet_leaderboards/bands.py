"""Reads the noise bands of metrics: the change of a value that re-encoding, or a crop moved by one pixel, causes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from talking_face.names import did_you_mean
from talking_face.reasons import UserError
from talking_face.signature import digest
from talking_face.user_files import csv_rows, number, read_text

SOURCE_OF = {"drawn": "embedded", "recorded": "real"}  # origin of data -> the clips of a calibration that are alike
_AS_IS = ("size:as-is", "length:exact", "start:0")  # fields of a signature
_CALIBRATION = Path(__file__).parents[2] / "docs" / "experiments" / "calibration" / "bands.csv"


@dataclass(frozen=True)
class Bands:
    """The noise bands by metric signature, in the unit of the metric. `about` names the file with the bands."""

    by_signature: Mapping[str, float] = field(default_factory=dict)
    about: str = ""
    by_source: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # empty if one source was chosen

    def for_origin(self, origin: str) -> Bands:
        """The bands of the clips that are like the data: a band of drawn clips does not hold for recordings.

        If the origin is mixed or unknown, or one source was chosen, these bands are returned: the largest of their
        sources. If no clip of the calibration is like the data, the result has no band.
        """
        source = SOURCE_OF.get(origin)
        if source is None or not set(SOURCE_OF.values()) & set(self.by_source):
            return self
        if source not in self.by_source:
            return Bands()
        return Bands(self.by_source[source], f"{self.about}, source {source}")

    def of(self, signature: str) -> float:
        """The band of a metric; 0 if the signature is unknown, so that every difference counts.

        Calibration compares frames as they are, so its signatures do not state how a video is treated. Such a band
        holds for any frame rate, and for no other treatment than `_AS_IS`.
        """
        fields = [part for part in signature.split("|") if part not in _AS_IS and not part.startswith("rate:")]
        return self.by_signature.get(signature, self.by_signature.get("|".join(fields), 0.0))


def known_bands() -> Path | None:
    """The file of noise bands in the source tree; None if the installation does not have it."""
    return _CALIBRATION if _CALIBRATION.is_file() else None


def load_bands(path: Path | None = None, source: str | None = None) -> Bands | None:
    """Read bands from `path`.

    If `path` is None, read the file in the source tree. If this file does not exist, return None.

    Raises:
        UserError: the same errors as `read_bands`.
    """
    path = path or known_bands()
    return read_bands(path, source) if path else None


def read_bands(path: Path, source: str | None = None) -> Bands:
    """Read bands from the CSV file that `cmet-eval calibrate` writes, with the columns signature, source and band.

    Args:
        path: the file.
        source: the clips that calibration used, such as `embedded`. If None, the bands of each source are kept: see
            `Bands.for_origin`.

    Raises:
        UserError: the file cannot be read, a band is not a number from 0, or the file has no band of this source.
    """
    if not path.exists():
        raise UserError(f"no file {path} of noise bands; `cmet-eval calibrate` writes one")
    text = read_text(path, "file of noise bands")
    found: dict[str, dict[str, float]] = {}
    rows = list(csv_rows(text, f"the file of noise bands {path}", ("signature", "source", "band")))
    for row in rows:
        if source in (None, row.cells["source"]):
            signature, band = row.cells["signature"], number(row.cells["band"], f"{path}, line {row.line}: band", 0.0)
            some = found.setdefault(row.cells["source"], {})
            some[signature] = max(some.get(signature, 0.0), band)
    if not found:
        sources = sorted({row.cells["source"] for row in rows})
        of = f" of the source {source!r}{did_you_mean(source, sources)}" if source else ""
        raise UserError(f"{path} has no noise band{of}")
    signatures = {signature for some in found.values() for signature in some}
    largest = {signature: max(some.get(signature, 0.0) for some in found.values()) for signature in signatures}
    about = f"{path.name} {digest(text.encode(), 8)}" + (f", source {source}" if source else "")
    return Bands(largest, about, {} if source else found)
