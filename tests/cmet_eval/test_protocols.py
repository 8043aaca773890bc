"""`cmet-eval measure --protocol`, `cmet-eval protocols`, and the TOML files of protocols."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import cmet_eval
from cmet_eval import cli
from cmet_eval.completion import protocols as offered
from cmet_eval.measuring.protocol_files import get_protocol, protocol_names
from cmet_metrics.registry import get_metric
from talking_face.media import read_frames, write_video
from talking_face.reasons import Reason, UserError
from tests.cmet_eval.test_measure import video

FOLDER = Path(cmet_eval.__file__).parent / "measuring" / "protocols"
OWN = """
name = "mine"
title = "Mine"
metrics = ["psnr"]
steps = ["Frame k is compared with frame k."]
[source]
repository = "me/mine"
commit = "0123456"
files = ["evaluate.py"]
[treatment]
rate = "as-is"
size = "resize"
length = "shorter"
start = 0
"""

# What the repositories' own codes print for lbax4n.mpg against lbbc2a.mpg; docs/experiments/protocols.md states how
# they were run. The codec steps of EAT depend on the release of x264 and OpenCV, hence the tolerance.
PEERS = {
    "eat": {
        "psnr:eat-stored": 13.465080953205389,
        "ssim:eat-stored": 0.4421663593141102,
        "m_lmd:eat-stored": 2.078690996584209,
        "f_lmd:eat-stored": 5.873772709959979,
    },
    "eat-cropped": {
        "psnr:eat,least=one-pair": 13.475962768580805,
        "ssim:eat,least=one-pair": 0.45441792686157223,
    },
    "atvgnet": {
        "psnr:atvgnet": 31.210936125211934,
        "ssim:atvgnet": 0.5836515936798804,
        "m_lmd:atvgnet,least=one-pair": 45.909688993285734,
    },
    "vico": {"psnr:vico": 12.557653071085612, "ssim:vico": 0.6240702740351359},
}


@pytest.mark.parametrize("name", PEERS)
def test_the_values_are_those_of_the_published_code(name: str, real_clips: list[Path]) -> None:
    folder = real_clips[0].parent
    found = cmet_eval.measure(folder / "lbax4n.mpg", folder / "lbbc2a.mpg", protocol=name, workers=0).as_dict()
    assert found == pytest.approx(PEERS[name], abs=1e-3 if name.startswith("eat") else 2e-5)


@pytest.mark.parametrize("name", protocol_names())
def test_a_shipped_protocol_names_known_metrics_and_bears_the_name_of_its_file(name: str) -> None:
    protocol = get_protocol(name)
    assert protocol.name == name
    for key in protocol.metrics:
        assert get_metric(key).key == key


def test_a_protocol_sets_metrics_and_rules_and_is_named_in_every_form(tmp_path: Path) -> None:
    """Two videos of different rates: the code of ViCo does not compare rates."""
    a, b = video(tmp_path / "a.mp4", seed=1), video(tmp_path / "b.mp4", seed=2, fps=30.0)
    result = cmet_eval.measure(a, b, protocol="vico", workers=0, out=tmp_path / "run")
    assert [metric.key for metric in result.metrics] == ["psnr:vico", "ssim:vico"] and not result.lost
    assert all("|rate:by-frame|size:as-is|length:exact|start:0|" in row.signature for row in result.rows)
    assert {row.setting for row in result.rows} == {"measure-vico"}
    for text in (result.to_markdown(), result.to_latex()):
        assert "protocol vico: " in text and "16424c0" in text
    assert json.loads(result.to_json())["protocol"] == "vico" and set(result.table["protocol"]) == {"vico"}
    assert "Measured by the protocol vico" in (tmp_path / "run/leaderboard/index.html").read_text()


def test_a_file_of_the_users_own_has_a_table_of_its_own(tmp_path: Path) -> None:
    a, b = video(tmp_path / "a.mp4", seed=1), video(tmp_path / "b.mp4", seed=2, size=(64, 64), frames=12)
    own = tmp_path / "own.toml"
    own.write_text(OWN)
    result = cmet_eval.measure(a, b, protocol=own, workers=0)
    assert result.as_dict().keys() == {"psnr:frame-mean"}
    own.write_text(OWN.replace('"shorter"', '"linspace"'))
    changed = cmet_eval.measure(a, b, protocol=own, workers=0)
    assert not changed.lost and result.rows[0].rules != changed.rows[0].rules
    own.write_text(OWN.replace('"shorter"', '"exact"'))
    refused = cmet_eval.measure(a, b, protocol=own, workers=0)
    assert refused.rows[0].reason == Reason.LENGTH_MISMATCH.value
    assert "--length" not in refused.rows[0].detail and "protocol mine" in refused.rows[0].detail


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("title", "titel"), "unknown field 'titel'; did you mean title"),
        (('"as-is"', '"30"'), "treatment.rate: it should be 'as-is', '25'"),
        (("start = 0", ""), "the field start in treatment is missing"),
        (('["psnr"]', "[]"), "metrics: "),
        (('["psnr"]', '["psnrr"]'), "did you mean psnr"),
        (('"0123456"', '"main"'), "source.commit: "),
        (('"mine"', '"vico"'), "has the name vico, which ships; choose another"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    a = video(tmp_path / "a.mp4")
    own = tmp_path / "own.toml"
    own.write_text(OWN.replace(*change))
    with pytest.raises(UserError, match=message) as error:
        cmet_eval.measure(a, a, protocol=own)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "option",
    [
        {"metrics": ["psnr"]},
        {"profile": "paper"},
        {"rate": "as-is"},
        {"size": "resize"},
        {"length": "exact"},
        {"start": 0},
    ],
)
def test_what_the_protocol_sets_is_refused_before_a_file_is_read(option: dict) -> None:
    (name,) = option
    with pytest.raises(UserError, match=f"--protocol vico sets --{name}: leave --{name} out"):
        cmet_eval.measure("nowhere", "nowhere", protocol="vico", **option)


def test_a_video_with_one_face_has_a_value_as_in_the_code(real_clips: list[Path], tmp_path: Path) -> None:
    """EAT and ATVGnet score a video if one pair of frames has two faces; `m_lmd:eat` and `psnr:eat` give a reason."""
    frames = read_frames(real_clips[0], None)[:12]
    write_video(tmp_path / "whole.mp4", frames, 25, None, 16000)
    hidden = frames.copy()
    hidden[3:] = 0
    write_video(tmp_path / "hidden.mp4", hidden, 25, None, 16000)
    pair = tmp_path / "hidden.mp4", tmp_path / "whole.mp4"
    for name in ("eat", "eat-cropped", "atvgnet"):
        assert not cmet_eval.measure(*pair, protocol=name, workers=0).lost
    plain = cmet_eval.measure(*pair, metrics=["psnr:eat", "m_lmd:eat", "m_lmd:atvgnet"], workers=0)
    assert {row.reason for row in plain.rows} == {Reason.FEW_FACES.value}


def test_the_listing_shows_the_steps_and_the_shell_completes_the_names(monkeypatch, capsys) -> None:
    assert [name for name, _ in offered()] == list(protocol_names())
    for words, shown in ((["protocols"], protocol_names()), (["protocols", "vico"], get_protocol("vico").metrics)):
        monkeypatch.setattr(sys, "argv", ["cmet-eval", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out = capsys.readouterr().out
        assert not end.value.code and all(text in out for text in shown)
    assert "1e-8 added" in " ".join(out.split())


def test_the_reference_page_describes_every_protocol() -> None:
    """The page has every sentence of the files."""
    page = " ".join((Path(__file__).parents[2] / "docs/reference/protocols.md").read_text().split())
    for name in protocol_names():
        protocol = get_protocol(name)
        assert f"## {name}" in page
        for text in (protocol.title, str(protocol.source), *protocol.metrics, *protocol.steps, *protocol.departures):
            assert " ".join(text.split()) in page, (name, text)
