"""A wheel holds unique import names and every data file, and works outside the checkout."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UNIQUE = {"talking_face", "embedded_corpus", "cmet_pipelines", "cmet_metrics", "cmet_reference", "cmet_baselines"}
UNIQUE |= {"cmet_leaderboards", "cmet_eval"}
DATA = (
    "cmet_baselines/catalogue/*.toml",
    "cmet_eval/**/settings/*.toml",
    "cmet_eval/**/settings/*.csv",
    "cmet_leaderboards/**/*.j2",
    "cmet_pipelines/defects/*.csv",
    "embedded_corpus/identities.toml",
    "embedded_corpus/phones.csv",
    "talking_face/pretrained/weights.toml",
    "talking_face/faces/speaking.csv",
)
