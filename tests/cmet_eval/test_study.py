"""The rating kit: blind names, balanced lists, a page that works in a browser, and an analysis with known answers."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cmet_eval.cli import build
from cmet_eval.protocol.pairs import PairList, pair_file_name
from cmet_eval.study.analysis import (
    Answer,
    analyse_preferences,
    analyse_ratings,
    krippendorff_alpha,
    to_markdown,
)
from cmet_eval.study.answers import pages_of, read_answers
from cmet_eval.study.key import Kind, plan_digest, read_key, write_key
from cmet_eval.study.make import make_study
from cmet_eval.study.plan import Design, plan
from talking_face.clip import Pair
from talking_face.media.writing import write_video
from talking_face.reasons import UserError
from talking_face.sealed import Damaged
from tests.browser import needs_chromium, visit

METHODS = ["ground-truth", "mine", "rival"]


@pytest.mark.parametrize(("kind", "shown"), [("rating", 3), ("pairwise", 3)])
def test_lists_are_balanced(kind: Kind, shown: int) -> None:
    design = Design(kind, per_rater=8)
    lists = [plan(8, 3, rater, design) for rater in range(6)]
    for items in lists:
        counts = Counter(tuple(sorted(item.methods)) for item in items)
        assert len(items) == 8 and max(counts.values()) - min(counts.values()) <= 1
        assert len({item.pair for item in items}) == 8  # nobody sees one sentence twice before all are seen
    every = Counter((item.pair, tuple(sorted(item.methods))) for items in lists for item in items)
    assert len(every) == 8 * shown and set(every.values()) == {2}
    assert lists[0] != lists[1] and lists == [plan(8, 3, rater, design) for rater in range(6)]
    if kind == "pairwise":
        left = Counter(item.methods[0] for items in lists for item in items)
        first = Counter(item.methods == tuple(sorted(item.methods)) for items in lists for item in items)
        assert len(left) == 3 and abs(first[True] - first[False]) <= 6
    assert len(plan(2, 3, 0, Design(kind))) == 6  # no more than there is


def make_pairs(n: int) -> list[Pair]:
    return [
        Pair(
            pair_id=f"s/P{k}/neutral>happy/s0/{k:04d}", setting="s", seed=0, speaker=f"P{k}", reference_clip="r",
            reference_frames=(0,), reference_emotion="neutral", source_clip="r", driving_clip="d",
            target_emotion="happy", intensity=1, ground_truth_clip="d",
        )
        for k in range(n)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of 2 pairs and 3 methods; the videos are grey in a shade of their own."""
    run = tmp_path_factory.mktemp("run")
    pairs = make_pairs(3)
    for (k, pair), (m, method) in itertools.product(enumerate(pairs), enumerate(METHODS)):
        if (k, m) != (2, 1):  # the third pair lacks one
            path = run / "videos" / method / "s" / f"{pair_file_name(pair.pair_id)}.mp4"
            write_video(path, np.full((5, 34, 33, 3), 40 + 60 * m + 9 * k, np.uint8), 25, np.zeros(3200, np.int16))
    data: Any = SimpleNamespace(frames=lambda clip, at: np.zeros((1, 32, 32, 3), np.uint8))
    out = run / "study"
    listed = PairList("s", "d", tuple(pairs))
    for _ in range(2):  # the second time finds all there
        make_study(run, listed, METHODS, data, out, design=Design(raters=4, per_rater=6), quiet=True)
    with pytest.raises(UserError, match="another study"):
        make_study(run, listed, METHODS, data, out, design=Design(raters=5, per_rater=6), quiet=True)
    return out


@pytest.mark.parametrize("there", ["file", "other files"])
def test_a_folder_of_others_is_not_made_a_study(study: Path, tmp_path: Path, there: str) -> None:
    out = tmp_path / "out"
    if there == "file":
        out.touch()
    else:
        out.mkdir()
        (out / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"out exists and is not a study with its key\.json"):
        make_study(study.parent, PairList("s", "d", tuple(make_pairs(3))), METHODS, None, out, quiet=True)  # type: ignore[arg-type]


def test_the_page_reveals_nothing_to_raters(study: Path) -> None:
    text = (study / "index.html").read_text()
    assert not any(name in text for name in [*METHODS, "neutral>happy", "s/P0"])
    names = json.loads((study / "key.json").read_text())["videos"]
    assert len(names) == 6 and all((study / name).exists() for name in names)
    assert sorted(p.suffix for p in (study / "media").iterdir()) == [".mp4"] * 6 + [".png"] * 2
    assert "http:" not in text and "https:" not in text


PROBE = """
const seen = {pages: 0};
URL.createObjectURL = (blob) => { blob.text().then((t) => { seen.saved = JSON.parse(t); report(seen); }); return "#"; };
document.getElementById("rater").value = "9"; document.getElementById("begin").click();
seen.problem = document.getElementById("problem").textContent;
document.getElementById("rater").value = "2"; document.getElementById("begin").click();
const answer = async () => {
  for (;;) {
    if (document.getElementById("item").hidden) break;
    seen.pages += 1;
    const video = document.querySelector("video");
    if (seen.pages === 1) {
      seen.blocked = document.getElementById("next").disabled;
      await new Promise((r) => { video.addEventListener("loadeddata", r); video.addEventListener("error", r); });
      seen.width = video.videoWidth;
    }
    for (const set of document.querySelectorAll("fieldset")) set.querySelectorAll("input")[3].click();
    document.getElementById("next").click();
  }
  document.getElementById("save").click();
};
answer();
"""


FRAMED = "window.report = (seen) => parent.postMessage(seen, '*');"
SCALE = """
document.getElementById("rater").value = "1"; document.getElementById("begin").click();
const box = (e) => { const r = e.getBoundingClientRect(); return [r.left, r.right, r.top, r.width]; };
report({
  labels: [...document.querySelector(".scale").querySelectorAll("label")].map(box),
  ends: [...document.querySelector(".scale").querySelectorAll(".end")].map((e) => [e.textContent, ...box(e)]),
  named: [...document.querySelector(".scale").querySelectorAll("input")].map((e) => e.getAttribute("aria-label")),
  wide: document.documentElement.scrollWidth - document.documentElement.clientWidth, inner: innerWidth,
});
"""


@needs_chromium
@pytest.mark.parametrize("width", [360, 1280])
def test_the_scale_is_one_line_with_equal_steps_and_both_ends_labelled(study: Path, width: int) -> None:
    """The page is in a frame, because the window of a browser without a screen is at least 500 px wide."""
    page = (study / "index.html").read_text().replace("<head>", f"<head><script>{FRAMED}</script>")
    (study / "framed.html").write_text(page.replace("</body>", f"<script>{SCALE}</script></body>"))
    frame = f"<iframe src='framed.html' style='width:{width}px;height:800px'></iframe>"
    listen = 'addEventListener("message", (e) => report(e.data));'
    seen, _ = visit(f"<html><head></head><body>{frame}</body></html>", listen, study / "probe.html")
    (study / "framed.html").unlink()
    lefts, tops = [box[0] for box in seen["labels"]], {box[2] for box in seen["labels"]}
    assert seen["inner"] == width and seen["wide"] <= 0
    assert len(lefts) == 5 and len(tops) == 1 and np.ptp(np.diff(lefts)) < 0.1
    assert min(box[3] for box in seen["labels"]) >= 44
    (low, low_left, *_), (high, _, high_right, *_) = seen["ends"]
    assert (low, high) == ("not at all", "perfectly")
    assert low_left == pytest.approx(lefts[0], abs=1) and high_right == pytest.approx(seen["labels"][-1][1], abs=1)
    assert seen["named"] == ["1: not at all", None, None, None, "5: perfectly"]


@needs_chromium
def test_a_rater_goes_through_the_page_and_the_answers_are_read(study: Path, tmp_path: Path) -> None:
    text = (study / "index.html").read_text()
    seen, _ = visit(text, PROBE, study / "probe.html")
    assert seen["errors"] == [] and "between 1 and 4" in seen["problem"] and seen["blocked"]
    assert seen["pages"] == 6 and seen["width"] == 32  # the odd column is cut
    saved = tmp_path / "answers.json"
    saved.write_text(json.dumps(seen["saved"]))
    answers = read_answers(study, [saved])
    key, records = answers.key, answers.counted
    assert answers.refused == [] and answers.missing == 0
    assert len(records) == 18 and {r.value for r in records} == {4} and {r.rater for r in records} == {1}
    rows = analyse_ratings(records, key.methods)
    assert [(r.mean, r.answers) for r in rows] == [(4.0, 2)] * 9 and math.isnan(rows[0].half_width)


def rater_file(study: Path, folder: Path, rater: int, name: str = "", values: object = None) -> Path:
    """A whole file of a rater; `values` instead of the answers of the first page."""
    key = read_key(study)
    pages = [{"videos": list(videos), "values": dict.fromkeys(key.questions, 3)} for videos in pages_of(key, rater)]
    if values is not None:
        pages[0]["values"] = values  # type: ignore[assignment]
    path = folder / (name or f"{rater}.json")
    plan = plan_digest(key, list(pages_of(key, rater)))
    path.write_text(json.dumps({"study": key.study, "rater": rater, "plan": plan, "answers": pages}))
    return path


WRONG = [None, "text", "4", 1000, -7, 0, 6, 4.6, 4.0, True, math.nan, math.inf, [3], {"a": 3}, 10**30]


@pytest.mark.parametrize("value", WRONG, ids=str)
def test_a_wrong_answer_is_named_and_the_others_are_counted(study: Path, tmp_path: Path, value: object) -> None:
    whole = rater_file(study, tmp_path, 0)
    path = rater_file(study, tmp_path, 1, values={"lip_sync": value, "emotion": 5, "charm": 3})
    found = read_answers(study, [path, whole])
    first, second = sorted(found.refused)
    assert first == "1.json: rater 2, page 1, 'charm': the study does not have this question"
    assert second.startswith("1.json: rater 2, page 1, lip_sync: ")
    assert second.endswith(" is not a whole number from 1 to 5")
    # Of 2 raters, 6 pages and 3 questions: without one answer, and without `identity` of one page.
    assert (len(found.counted), found.missing) == (2 * 6 * 3 - 2, 1)


def test_wrong_files_are_named_and_the_others_are_counted(study: Path, tmp_path: Path) -> None:
    whole = rater_file(study, tmp_path, 2)
    text = whole.read_text()
    bad = {
        "brace.json": ("{", "it is not the file of a rater's answers"),
        "null.json": ("null", "it is not the file"),
        "deep.json": ("[" * 100_000, "it is not the file"),
        "large.json": (" " * (5 << 20), "it has over 4 MB"),
        "latin.json": (text.replace("answers", "réponses"), "it is not the file"),
        "other.json": (text.replace(read_key(study).study, "x"), "it belongs to another study (x)"),
        "nobody.json": (text.replace('"rater": 2', '"rater": 4'), "there is no rater 5; the study has 4"),
        "minus.json": (text.replace('"rater": 2', '"rater": -1'), "there is no rater 0; the study has 4"),
        "half.json": (text.replace('"rater": 2', '"rater": 2.5'), "it is not the file"),
        "swapped.json": (text.replace('"rater": 2', '"rater": 1'), "rater 2: it answers another plan ("),
        "old.json": (text.replace('"plan"', '"plant"'), "rater 3: it answers another plan (none)"),
    }
    for name, (content, _) in bad.items():
        (tmp_path / name).write_bytes(content.encode("latin-1"))
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    found = read_answers(study, tmp_path.glob("*.json"))
    assert len(found.counted) == 18 and found.missing == 0
    lines = dict(line.split(": ", 1) for line in found.refused)
    assert lines.keys() == bad.keys() | {"folder.json", "zero.json"}
    assert all(lines[name].startswith(words) for name, (_, words) in bad.items())


def test_what_is_missing_is_named_by_rater_page_and_question(study: Path, tmp_path: Path) -> None:
    content = json.loads(rater_file(study, tmp_path, 0).read_text())
    del content["answers"][1], content["answers"][3]["values"]["emotion"]
    (tmp_path / "0.json").write_text(json.dumps(content))
    found = read_answers(study, [tmp_path / "0.json", rater_file(study, tmp_path, 2)])
    assert sorted(found.gaps) == [
        "0.json: rater 1, page 2 of the plan: no answer to lip_sync, emotion, identity",
        "0.json: rater 1, page 5 of the plan: no answer to emotion",
    ]
    assert found.missing == 4 and found.silent == [2, 4]


def test_answers_to_a_study_of_version_2_have_no_plan(study: Path, tmp_path: Path) -> None:
    key = replace(read_key(study), version=2, originals={})
    write_key(tmp_path, key)
    path = rater_file(study, tmp_path, 0)
    path.write_text(path.read_text().replace('"plan"', '"plant"'))
    assert len(read_answers(tmp_path, [path]).counted) == 18


def test_an_answer_counts_once(study: Path, tmp_path: Path) -> None:
    """A page fifty times in one file, a file fifty times, and two different files of one rater."""
    path = rater_file(study, tmp_path, 0)
    content = json.loads(path.read_text())
    content["answers"] += [content["answers"][0]] * 49 + [None, {"videos": ["media/no.mp4"], "values": {}}]
    path.write_text(json.dumps(content))
    found = read_answers(study, [path])
    assert len(found.counted) == 18 and len(found.refused) == 51
    assert "0.json: rater 1, page 7: it repeats page 1" in found.refused
    assert "0.json: rater 1, page 56: it is not an answer" in found.refused
    assert "0.json: rater 1, page 57: it has videos that this rater's plan does not have" in found.refused
    many = [rater_file(study, tmp_path, 1, f"{k:02}.json") for k in range(50)]
    found = read_answers(study, many)
    assert len(found.counted) == 18 and len(found.refused) == 49
    assert found.refused[0] == "01.json: rater 2: the same answers are in 00.json"
    found = read_answers(study, [*many, rater_file(study, tmp_path, 1, "other.json", {"emotion": 1})])
    assert found.counted == [] and len(found.refused) == 51


def test_the_command_prints_what_is_left_out(study: Path, tmp_path: Path) -> None:
    for rater in (0, 1):
        rater_file(study, tmp_path, rater)
    words = ["study", "analyse", "--out", str(study), "--answers", str(tmp_path)]
    done = CliRunner().invoke(build("study"), words)
    assert done.exit_code == 0 and "36 answers counted, 0 refused, 0 missing" in done.stderr
    assert "no answers of 2 raters: 3, 4" in done.stderr and "--run" in done.stderr
    rater_file(study, tmp_path, 1, values={"emotion": 1000})
    done = CliRunner().invoke(build("study"), words)
    assert done.exit_code == 1 and "| lip_sync |" in done.stdout
    assert "refused: 1.json: rater 2, page 1, emotion: 1000 is not a whole number from 1 to 5" in done.stderr
    assert "33 answers counted, 1 refused, 2 missing" in done.stderr


def test_a_damaged_key_is_named(study: Path, tmp_path: Path) -> None:
    text = (study / "key.json").read_text()
    for bad in (text.replace('"rival"', '"rivel"', 1), "", "null", text.replace('"raters":4', '"raters":8')):
        (tmp_path / "key.json").write_text(bad)
        with pytest.raises(Damaged, match=r"key\.json is damaged .*restore your copy"):
            read_answers(tmp_path, [])


def test_ratings_by_hand() -> None:
    """Raters' means 2, 3, 4 for `mine`: mean 3, half-width t(0.975, 2) / sqrt(3) = 4.3027 / 1.7321."""
    records = [Answer(r, "q", p, ("mine",), 2 + r) for r in range(3) for p in "ab"]
    (row,) = analyse_ratings(records, ["mine"])
    assert row.mean == 3 and row.half_width == pytest.approx(2.48414, abs=1e-5) and row.answers == 6


def test_preferences_by_hand() -> None:
    """Shown on either side; rater 0 always prefers `a`, rater 1 half of the time."""
    shown = [(("a", "b"), 0), (("b", "a"), 1)]
    records = [Answer(0, "q", str(k), m, v) for k, (m, v) in enumerate(shown)]
    records += [Answer(1, "q", str(k), m, 0) for k, (m, _) in enumerate(shown)]
    (row,) = analyse_preferences(records, ["a", "b"])
    assert row.mean == 0.75 and row.answers == 4
    assert "| q | a | b | 0.75 |" in to_markdown([row])


def test_alpha_is_krippendorffs() -> None:
    """The example with four observers and twelve units of Krippendorff, "Computing Krippendorff's Alpha-Reliability"
    (2011), section D: nominal 0.743, ordinal 0.815."""
    table = {
        0: [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        1: [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        2: [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        3: [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    }
    judged = [(r, u, v) for r, row in table.items() for u, v in enumerate(row) if v is not None]
    assert krippendorff_alpha(judged, "nominal") == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(judged, "ordinal") == pytest.approx(0.815, abs=5e-4)
