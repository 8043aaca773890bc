"""Keys: the golden table of signatures, options in keys, errors, metrics of the user's own; and complete records."""

from __future__ import annotations

import csv
import importlib
import re
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from cmet_metrics.base import DEFAULT_FILES, Metric, Sample
from cmet_metrics.lmd import Lmd
from cmet_metrics.psnr import Psnr
from cmet_metrics.record import LAST, choices, cost_of
from cmet_metrics.registry import KEYS, METRICS, find_record, get_metric, quick_metrics
from cmet_metrics.ssim import Ssim
from talking_face.pretrained import trained_evaluators
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import weight
from talking_face.reasons import UserError

GOLDEN = Path(__file__).with_name("signatures.csv")


def golden() -> dict[str, str]:
    with GOLDEN.open(newline="") as file:
        return {row["key"]: row["signature"] for row in csv.DictReader(file)}


def test_every_key_has_its_published_signature(tmp_path: Path) -> None:
    """The table was written before variants became constructor arguments. Files without a known hash are absent."""
    files = ModelFiles(cache=tmp_path)
    found = {key: str(get_metric(key, files).signature()) for key in KEYS}
    assert found.keys() - golden().keys() == set(), "add a line to signatures.csv; add_a_metric.md has the command"
    assert found == golden()


def test_the_hash_of_a_trained_evaluator_is_in_the_signature(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    hashes = {}
    for kind, name in trained_evaluators.FILES.items():
        labels = ("happy", "sad") if kind == "emotion" else ()
        record = trained_evaluators.TrainedOn(kind, "data", (), (), 0, labels)
        hashes[kind] = trained_evaluators.save(tmp_path / name, {"w": torch.zeros(1)}, record)[:8]
    for key, signature in golden().items():
        if key.endswith(":corpus"):
            metric = get_metric(key, ModelFiles(weights=(tmp_path,)))
            assert metric.evaluator is not None
            expected = signature.replace("@absent", f"@{hashes[metric.evaluator]}").replace("classes:8", "classes:2")
            assert str(metric.signature()) == expected
            assert "absent" in str(get_metric(key, ModelFiles(cache=tmp_path)).signature())


@pytest.mark.parametrize("key", KEYS)
def test_a_record_is_complete(key: str) -> None:
    metric = get_metric(key, DEFAULT_FILES)
    assert metric.key == key and f"{metric.name}:{metric.variant}" == key
    assert metric.title and metric.summary and metric.source is not None
    assert metric.title != metric.title.lower()
    assert metric.profile in ("embedded", "paper", "both")
    assert all(weight(name) for name in metric.weights)
    assert metric.order < LAST
    assert metric.bibtex.count("{") == metric.bibtex.count("}")
    assert hash(metric) == hash(get_metric(key, DEFAULT_FILES)) and metric == get_metric(key, DEFAULT_FILES)


@pytest.mark.parametrize("key", KEYS)
def test_every_option_of_every_key_round_trips_and_changes_the_signature(key: str) -> None:
    base = get_metric(key, DEFAULT_FILES)
    for item in fields(base):
        if item.name == "files":
            continue
        for value in choices(type(base), item.name):
            text = "3" if value is int else str(value)
            if text == str(getattr(base, item.name)):
                continue
            try:
                other = get_metric(f"{key},{item.name}={text}", DEFAULT_FILES)
            except UserError as error:
                assert " only" in str(error), "a combination that does not exist"
                continue
            assert str(getattr(other, item.name)) == text
            assert get_metric(other.key, DEFAULT_FILES) == other
            assert other.signature() != base.signature(), other.key


def test_options_override_arguments() -> None:
    metric = get_metric("ssim:skimage,frames=linspace")
    assert metric.key == "ssim:skimage,frames=linspace" and metric.variant == "skimage"
    assert isinstance(metric, Ssim) and (metric.window, metric.frames) == ("uniform-7", "linspace")
    assert str(metric.signature()) == str(get_metric("ssim:skimage").signature()).replace("exact", "linspace")
    assert get_metric("csim,looked_at=3").key == "csim:dlib,looked_at=3"
    # Two texts for one metric have one key, so that they share a column.
    assert get_metric("psnr:frame-mean,region=mouth").key == "psnr:mouth" == Psnr(region="mouth").key
    assert get_metric("m_lmd:eat,region=face").key == "f_lmd:eat"
    assert Lmd(points="fan", align="none").key == "m_lmd:eat,points=fan,align=none"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            "ssim:skimage,frame=min",
            r"unknown option 'frame'; did you mean frames\?; known: frames, window,",
        ),
        (
            "ssim:skimage,frames=linspce",
            r"unknown frames 'linspce'; did you mean linspace\?; known: exact, lin",
        ),
        ("csim:dlib,looked_at=0", "unknown looked_at '0'.*known: a whole number, all"),
        ("fid:cmet-pair,x=1", "unknown option 'x'.*known: none"),
        ("ssim:skimage,border=reflect", "window=uniform-7 has border=valid only"),
        ("m_lmd:eat,points=fan", "points=fan has align=none only"),
        ("ea:emotion-fan-8,per=frame", "per=video only"),
        ("lse_c:corpus,crop=lm", "crop=mouth goes with network=corpus, and only with it"),
        ("fid:dataset", "no metric is called 'fid:dataset'.*fid:cmet-pair"),
        ("ssim:skimage,frames=min,frames=exact", "frames is given twice"),
        ("ssim:skimage,frames", "frames has no value; give frames=VALUE; known: exact, linspace, min"),
        ("json:nothing", "json has no class nothing"),
        ("cmet_metrics.ssim:Ssin", r"no class Ssin .*; did you mean Ssim\?"),
        ("brightnes:Brightness", "there is no module brightnes on the Python path or in the current folder"),
        ("made/brightness.py:Brightness", "write the module's name without .py, brightness:Brightness"),
        ("brightness:Brightness,frames=min", "a class of your own takes no options"),
        ("json:JSONDecoder", "no class JSONDecoder that is a cmet_metrics.base.Metric"),
    ],
)
def test_wrong_keys_list_the_known_ones(key: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        get_metric(key)


def test_a_wrong_argument_is_an_error() -> None:
    with pytest.raises(UserError, match="Psnr: region=nose; known: full, lower-half, mouth"):
        Psnr(region="nose")  # type: ignore[arg-type]


OWN = '''
from cmet_metrics.base import Metric, Score

class Brightness(Metric):
    """Difference in mean level."""

    name = "brightness"
    title = "Brightness"
    higher_is_better = False

    def settings(self):
        return {"agg": "video-mean"}

    def compute(self, pred, target):
        return Score(abs(float(pred.frames.mean()) - float(target.frames.mean())), len(pred.frames))

class Half(Metric):
    name = "half"
'''


def test_a_metric_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_metrics_here.py").write_text(OWN)
    (tmp_path / "broken_here.py").write_text("import nothing_of_this_name\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    importlib.invalidate_caches()
    metric = get_metric("own_metrics_here:Brightness", ModelFiles(cache=tmp_path))
    assert (metric.key, metric.summary) == ("own_metrics_here:Brightness", "Difference in mean level.")
    assert metric.files == ModelFiles(cache=tmp_path) and metric.profile == "both"
    assert str(metric.signature()) == ("brightness|variant:own_metrics_here.Brightness|agg:video-mean|version:1.0.0")
    assert find_record("own_metrics_here:Brightness") is not None, "loaded before"
    assert find_record("own_metrics_here:Half") is None, "a key in a file imports nothing"
    clip = np.zeros((3, 8, 8, 3), np.uint8)
    assert metric.score(Sample(clip + 2), Sample(clip)).value == 2
    (tmp_path / "ssim.py").write_text(OWN)
    for key, message in (
        ("ssim:Brightness", "give ssim.py another name"),
        ("own_metrics_here:Brightness,x=1", "takes no options"),
        ("own_metrics_here:Half", "does not define .*compute.*title"),
        ("own_metrics_here:Nothing", "no class Nothing"),
        ("broken_here:Any", "broken_here cannot be imported .*nothing_of_this_name"),
        ("no_such_module_here:Any", "no metric is called"),
    ):
        with pytest.raises(UserError, match=message):
            get_metric(key)


def test_a_users_own_class_with_variants_is_its_first_variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[2] / "docs" / "how_to" / "add_a_metric.md"
    _, example = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "own_level_here.py").write_text(example.replace('mean level"', 'mean level", {"channel": "red"}'))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    metric = get_metric("own_level_here:Level")
    assert metric.key == "own_level_here:Level" == get_metric(metric.key).key
    assert metric.signature().fields["variant"] == "own_level_here.Level"
    assert metric.arguments == {"statistic": "mean", "channel": "red"}


def test_every_file_with_metrics_lists_them() -> None:
    """A class without a place in `METRICS` would be missed by commands."""
    listed = {type(metric) for metric in METRICS}

    def leaves(cls: type[Metric]) -> set[type[Metric]]:
        below = cls.__subclasses__()
        return set().union(*map(leaves, below)) if below else {cls}

    ours = {c for c in leaves(Metric) if c.__module__.startswith("cmet_metrics.") and c.__module__ in sys.modules}
    assert ours <= listed


def test_find_record_knows_the_name_of_an_unknown_variant() -> None:
    assert (record := find_record("psnr:of-another-suite")) is not None and record.title == "PSNR"
    assert find_record("nothing:known") is None


def test_the_quick_metrics_need_only_two_videos_and_the_core_installation() -> None:
    keys = quick_metrics()
    assert keys == (
        *("psnr:frame-mean", "ssim:wang2004", "m_lmd:native-mp", "f_lmd:native-mp"),
        *("jitter:output", "lip_energy:correlation", "registration:shift"),
    )
    for metric in map(get_metric, keys):
        assert cost_of(metric) == "quick" and set(metric.weights) <= {"face_landmarker"} and metric.profile == "both"
    assert {cost_of(get_metric(key)) for key in ("m_lmd:eat", "csim:dlib", "fid", "fvd")} == {"slow"}
