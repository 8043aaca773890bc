"""Defines the parameters of a speaker: face, hair, clothes and voice.

The parameters of a default speaker are read from `identities.toml`; `docs/reference/embedded_corpus.md` describes how
the default speakers were chosen. The parameters of any other speaker are sampled from a seed. Lengths are in units of
100 mm in the plane of the face: x to the right, y down. The origin is on the vertical axis of the face, slightly below
the eyes.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from talking_face.files import sha256_of

# Name of each parameter, with the (lowest, highest) value for men and then for women. The ranges are anthropometric
# means plus or minus about three standard deviations, so that two speakers differ as much as two real people.
RANGES: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "face_width": ((0.61, 0.81), (0.57, 0.75)),  # half the width at the cheekbones
    "jaw_width": ((0.76, 0.93), (0.70, 0.88)),  # share of face_width, at 62 % of the way down to the chin
    "chin_width": ((0.22, 0.46), (0.17, 0.38)),  # 0.17 is pointed, 0.46 is square
    "chin_y": ((0.9, 1.15), (0.86, 1.08)),
    "hairline_y": ((-0.98, -0.66), (-0.95, -0.64)),
    "temple": ((0.88, 1.04), (0.86, 1.02)),  # width at the temples, as a share of face_width
    "eye_x": ((0.265, 0.37), (0.265, 0.37)),
    "eye_y": ((-0.16, -0.04), (-0.15, -0.02)),
    "eye_width": ((0.11, 0.16), (0.12, 0.18)),  # half the width of the eye opening
    "eye_open": ((0.06, 0.115), (0.07, 0.14)),
    "eye_tilt": ((-0.1, 0.16), (-0.06, 0.22)),  # slope of the eye; positive if the outer corner is the higher corner
    "lid_fold": ((0.0, 1.0), (0.0, 1.0)),  # fold above the eye: 0 not visible, 1 deep
    "brow_gap": ((0.11, 0.21), (0.14, 0.27)),  # height of the brow above the eye
    "brow_thick": ((0.03, 0.085), (0.012, 0.055)),
    "brow_tilt": ((-0.12, 0.14), (-0.05, 0.22)),
    "brow_arch": ((0.0, 0.05), (0.01, 0.08)),
    "brow_dense": ((0.5, 1.0), (0.45, 1.0)),
    "brow_ridge": ((0.3, 1.6), (0.0, 0.7)),
    "nose_width": ((0.125, 0.25), (0.11, 0.225)),
    "nose_bridge": ((0.045, 0.105), (0.036, 0.09)),
    "nose_height": ((0.12, 0.3), (0.1, 0.26)),
    "nose_y": ((0.25, 0.45), (0.23, 0.41)),  # base of the nose
    "mouth_width": ((0.205, 0.33), (0.205, 0.31)),
    "mouth_y": ((0.17, 0.28), (0.16, 0.26)),  # distance of the mouth below the base of the nose
    "lip_upper": ((0.03, 0.09), (0.055, 0.12)),
    "lip_lower": ((0.045, 0.125), (0.055, 0.145)),
    "cheek": ((0.0, 1.9), (0.2, 2.1)),
    "hollow": ((0.0, 1.6), (0.0, 1.0)),
    "age": ((0, 1), (0, 1.0)),
    "ear": ((0.85, 1.25), (0.75, 1.1)),
    "melanin": ((0.0, 1.0), (0.0, 1.0)),
    "redness": ((0.0, 1.0), (0.0, 1.0)),
    "freckles": ((0.0, 1.0), (0.0, 1.0)),
    "lip_red": ((0.05, 0.45), (0.3, 1.0)),
    "hair_dark": ((0.0, 1.0), (0.0, 1.0)),
    "hair_red": ((0.0, 0.6), (0.0, 1.0)),
    "hair_grey": ((0.0, 1.0), (0.0, 0.8)),
    "iris": ((0.0, 1.0), (0.0, 1.0)),
    "clothes": ((0.0, 1.0), (0.0, 1.0)),
    "pitch": ((88.0, 142.0), (172.0, 246.0)),  # median pitch of the voice, Hz
    "tract": ((0.96, 1.06), (1.12, 1.23)),  # factor of the formants, relative to a vocal tract of 17.5 cm
    "breath": ((0.02, 0.10), (0.04, 0.16)),
    "tempo": ((0.90, 1.12), (0.92, 1.14)),
}
STYLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "hair": (
        ("bald", "crop", "short", "swept", "curly", "long"),
        ("long", "bob", "fringe", "bun", "curly", "crop"),
    ),
    "beard": (("none", "none", "stubble", "moustache", "goatee", "full"), ("none",)),
    "glasses": (("none", "none", "none", "round", "square"), ("none", "none", "none", "round", "square")),
}


@dataclass(frozen=True, slots=True)
class Identity:
    """One speaker. `values` has every name in RANGES, and `styles` every name in STYLES."""

    name: str  # such as M901 or W903: MEAD's form, with numbers that no actor of the release has
    seed: int  # seed of the random details, such as the skin's grain and the single hairs
    values: dict[str, float]
    styles: dict[str, str]

    def __getattr__(self, key: str) -> float:
        try:
            return self.values[key]
        except KeyError:
            raise AttributeError(key) from None

    @property
    def female(self) -> bool:
        """Whether the name starts with W."""
        return self.name.startswith("W")

    def to_dict(self) -> dict[str, object]:
        """All fields, JSON-ready."""
        return asdict(self)


def key_seed(*parts: object) -> int:
    """A 64-bit seed from a readable key, such as the name of a speaker or of a clip."""
    return int(sha256_of("/".join(map(str, parts)).encode())[:16], 16)


def sample_identity(name: str, seed: int) -> Identity:
    """A random speaker. `name` starts with M or W, which selects the ranges of men or women."""
    rng = np.random.default_rng(seed)
    sex = int(name.startswith("W"))
    # Beta(0.8, 0.8) slightly prefers the ends of the ranges, because faces near the mean look similar to each other.
    values = {
        k: round(float(lo + (hi - lo) * rng.beta(0.8, 0.8)), 4)
        for k, (lo, hi) in ((k, r[sex]) for k, r in RANGES.items())
    }
    if values["melanin"] > 0.45:  # a speaker with dark skin gets dark hair and brown eyes
        values["hair_dark"] = round(0.75 + 0.25 * values["hair_dark"], 4)
        values["hair_red"] = round(0.3 * values["hair_red"], 4)
        values["iris"] = round(0.25 * values["iris"], 4)
        values["freckles"] = round(0.2 * values["freckles"], 4)
    values["hair_grey"] = round(values["hair_grey"] if values["age"] > 0.6 else 0.0, 4)
    styles = {k: str(rng.choice(r[sex])) for k, r in STYLES.items()}
    return Identity(name, int(rng.integers(2**31)), values, styles)


def distance(a: Identity, b: Identity) -> float:
    """Root mean square difference between the face parameters of two speakers, plus 0.1 per style that differs.

    Each parameter is divided by the width of its range. Clothes and voice are ignored.
    """
    keys = [k for k in RANGES if k not in ("clothes", "pitch", "tract", "breath", "tempo")]
    spans = [max(RANGES[k][0][1], RANGES[k][1][1]) - min(RANGES[k][0][0], RANGES[k][1][0]) for k in keys]
    gaps = [(a.values[k] - b.values[k]) / s for k, s in zip(keys, spans, strict=True)]
    return float(np.sqrt(np.mean(np.square(gaps)))) + 0.1 * sum(a.styles[k] != b.styles[k] for k in STYLES)


def speaker_names(count: int) -> list[str]:
    """The names M901, W901, M902, W902, ... If `count` is odd, there is one man more than women."""
    if not 1 <= count <= 198:
        raise ValueError(f"speakers must be 1 to 198, got {count}")
    return [f"{'MW'[k % 2]}{901 + k // 2}" for k in range(count)]


@lru_cache(maxsize=1)
def _table() -> dict[str, Identity]:
    with (Path(__file__).parent / "identities.toml").open("rb") as file:
        rows = tomllib.load(file)
    return {
        name: Identity(name, row["seed"], {k: float(row[k]) for k in RANGES}, {k: str(row[k]) for k in STYLES})
        for name, row in rows.items()
    }


@lru_cache(maxsize=256)
def get_identity(name: str) -> Identity:
    """The speaker with that name.

    A default speaker is read from the table. For any other name, up to 200 speakers are sampled. The first sample that
    differs enough from all earlier speakers is used. If no sample differs enough, the most different sample is used.
    """
    table = _table()
    if name in table:
        return table[name]
    number = int(name[1:])
    before = list(table.values()) + [
        get_identity(n) for n in speaker_names(198) if n not in table and int(n[1:]) < number
    ]
    best, best_gap = None, -1.0
    for k in range(200):
        one = sample_identity(name, key_seed("identity", name, k))
        gap = min(distance(one, other) for other in before)
        if gap > best_gap:
            best, best_gap = one, gap
        if gap > 0.42:
            break
    assert best is not None
    return best
