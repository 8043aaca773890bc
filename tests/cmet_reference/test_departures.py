"""Compares the record of departures with the settings of the models and with the page of the docs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path

import pytest

from cmet_reference import departures as record
from cmet_reference.cem_net import train as cem_net
from cmet_reference.cmet.train import read_settings
from cmet_reference.render import flow_stage
from cmet_reference.training import config

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"cmet": "cmet_reference.cmet", "cem-net": "cmet_reference.cem_net"}


def flat(table: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", list(value) if isinstance(value, tuple) else value


def resolved(model: str, name: str) -> dict[str, object]:
    """All settings by dotted key, with the defaults of those that the TOML file leaves out."""
    table = config.load(PACKAGES[model], name)
    if model == "cmet":
        return dict(flat(asdict(read_settings(table))))
    out: dict[str, object] = {}
    for stage in table:
        if stage == flow_stage.KIND:
            out |= flat(asdict(flow_stage.read_settings(table[stage])), f"{stage}.")
            continue
        for part in cem_net.stage_settings(table, stage):
            assert is_dataclass(part) and not isinstance(part, type)
            inner = {"Net": "net.", "Los": "weights."}.get(type(part).__name__.removesuffix("Settings")[-3:], "")
            inner = "weights." if type(part).__name__.endswith("LossWeights") else inner
            out |= flat(asdict(part), f"{stage}.{inner}")
    return out


SETTINGS = {(model, name): resolved(model, name) for model in PACKAGES for name in record.CONFIGS}


@pytest.mark.parametrize("departure", record.departures(), ids=lambda d: f"{d.model}-{d.stage}-{d.topic}"[:60])
def test_the_values_of_a_record_are_the_values_of_the_toml_files(departure: record.Departure) -> None:
    assert departure.settings or departure.covers or departure.theirs
    for key, values in departure.settings.items():
        assert {*values} == {*record.CONFIGS}, key
        for name, value in values.items():
            assert SETTINGS[departure.model, name].get(key, record.ABSENT) == value, (key, name)
        differing = {name for name, value in values.items() if value != values["paper"]}
        assert differing <= {*departure.configs}, key
    for pattern in departure.covers:
        keys = {key for name in record.CONFIGS for key in SETTINGS[departure.model, name]}
        assert any(record.fnmatchcase(key, pattern) for key in keys), pattern


@pytest.mark.parametrize("model", PACKAGES)
@pytest.mark.parametrize("name", ["adapted", "demo"])
def test_every_setting_that_differs_from_paper_has_a_record(model: str, name: record.Config) -> None:
    paper, other = SETTINGS[model, "paper"], SETTINGS[model, name]
    records = [d for d in record.departures() if d.model == model and name in d.configs]
    differing = {key for key in paper.keys() | other.keys() if paper.get(key) != other.get(key)}
    assert len(differing) >= 3
    assert sorted(key for key in differing if not any(d.describes(key) for d in records)) == []


def test_settings_of_ours_are_off_in_paper_and_unpublished_settings_exist() -> None:
    paper = SETTINGS["cem-net", "paper"]
    off = ("table", "spread", "decision", "neutral", "picture_emotion")
    assert not any(paper[f"ebm.net.{key}"] for key in off)
    assert (paper["ebm.net.strength"], paper["ebm.net.mouth"]) == (1, 1)
    assert not {key.split(".")[0] for key in paper} & {"appearance", "skin"}
    for model, package in PACKAGES.items():
        assert {*config.not_published(package)} <= SETTINGS[model, "paper"].keys()


def test_the_page_shows_the_record() -> None:
    page = (ROOT / record.PAGE).read_text("utf-8")
    assert record.markdown() in page, f"python -m cmet_reference.departures, into {record.PAGE}"


def test_the_settings_of_a_checkpoint_name_its_records() -> None:
    table = config.load(PACKAGES["cem-net"], "paper")["ebm"]
    assert isinstance(table, dict)
    assert record.nearest_config("ebm", table) == "paper"
    assert record.nearest_config("ebm", {**table, "steps": 50}) == "adapted"
    assert record.nearest_config("ebm", config.load(PACKAGES["cem-net"], "demo")["ebm"]) == "demo"
    released = config.load(PACKAGES["cmet"], "paper")
    assert record.nearest_config("cmet", {**released, "codec": "edtalk:checkout (0a1b2c3d)"}) == "paper"
    assert record.nearest_config("cmet", {**released, "codec": "blendshape"}) == "adapted"
    topics = [d.topic for d in record.departures_of("cem-net", ["ebm"], "paper")]
    assert "identity" in topics and "temperature" not in topics
