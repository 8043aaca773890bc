"""The answer of a board in words: who is better at what, by the paired tests, and what is not separated."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from cmet_leaderboards.answer_text import WEAK, AnswerText, answer_text
from cmet_leaderboards.bands import Bands
from cmet_leaderboards.board import build
from tests.leaderboards.test_sections import noise, only, rows, write

STEP = 0.04
EA, LMD = "ea:fer", "m_lmd:eat"


def plain(text: str) -> str:
    return re.sub("[\u2068\u2069]", "", text)


def make_board(folder: Path, second: float = 1.0) -> AnswerText:
    """`a` is better than `b` by EA. M-LMD does not separate them. A floor is worse by both; the ceiling is best."""
    levels = {"truth": (3.0, 0.0, "ceiling"), "a, best": (1.0 + second, 2.0, "method"), "b": (1.0, 2.0, "method")}
    levels |= {"floor": (0.0, 9.0, "floor")}
    for k, (name, (ea, lmd, role)) in enumerate(levels.items()):
        made = [
            rows(name, lambda s, i, x=ea, k=k: x + noise(k)(s, i), EA),
            rows(name, lambda s, i, x=lmd, k=k: x + noise(9 + k)(s, i), LMD, higher_is_better=False),
        ]
        write(folder, name, *made, role=role)
    return answer_text(only(folder))


def test_the_answer_names_the_better_method_with_the_p_of_the_test(tmp_path: Path) -> None:
    found = make_board(tmp_path)
    lead = plain(found.lead)
    assert re.fullmatch(
        r"a, best is better than b by EA \(p [=<] [\d.]+\)\. The other metric does not separate a, best from b\.", lead
    )
    assert [name for name, _ in found.lines] == ["EA", "M-LMD"]
    assert "\u2068a, best\u2069 is better than \u2068b\u2069" in found.lines[0][1]
    assert plain(found.lines[1][1]).startswith("a, best and b are better than floor (p ")
    assert [plain(text) for text in found.ceiling] == ["truth is better than every method by EA and M-LMD (p < 0.001)."]
    assert "3 comparisons of two methods by the same metric" in found.note and found.found == 5


def test_the_corrected_p_is_that_of_scipy_and_holm(tmp_path: Path) -> None:
    make_board(tmp_path)
    table = only(tmp_path)
    by_speaker = {
        method: np.array([[noise(k)(s, i) for i in range(6)] for s in range(4)]).mean(axis=1) + level
        for k, (method, level) in enumerate({"truth": 3.0, "a, best": 2.0, "b": 1.0, "floor": 0.0}.items())
    }
    pairs = [("a, best", "b"), ("a, best", "floor"), ("b", "floor")]
    alone = {pair: float(stats.ttest_rel(by_speaker[pair[0]], by_speaker[pair[1]]).pvalue) for pair in pairs}
    factors = dict(zip(sorted(pairs, key=alone.__getitem__), (3, 2, 1), strict=True))
    ea = {(one.better[0], one.worse[0]): one.p for one in table.answer.ranked.findings if one.column.metric == EA}
    running = 0.0
    for pair in sorted(pairs, key=alone.__getitem__):
        running = max(running, alone[pair] * factors[pair])
        assert ea[pair] == pytest.approx(min(1.0, running), rel=1e-6)


def test_what_is_not_separated_is_said_once_and_noise_is_no_difference(tmp_path: Path) -> None:
    found = make_board(tmp_path / "same", second=0.0)
    text = plain(" ".join([found.lead, *found.same]))
    assert text.startswith("None of the 2 metrics separates a, best from b.") and text.count("a, best") == 1
    make_board(tmp_path / "band")
    wide = answer_text(only(tmp_path / "band", Bands({f"{m}|version:1": 99.0 for m in (EA, LMD)}, "test")))
    assert wide.lines == () and wide.found == 0 and "better" not in " ".join([wide.lead, *wide.same, *wide.ceiling])
    assert "No metric separates any other two methods." in wide.same


def test_a_difference_that_does_not_hold_over_all_metrics_is_marked(tmp_path: Path) -> None:
    """M-LMD shows nothing. Its 3 comparisons lift the p of `a` and `b` by EA from below 0.05 to above 0.05."""
    levels = {"a": (STEP, "method"), "b": (0.0, "method"), "floor": (-9.0, "floor")}
    for k, (name, (level, role)) in enumerate(levels.items()):
        made = rows(name, lambda s, i, x=level, k=k: x + noise(k)(s, i), EA)
        tied = rows(name, lambda s, i, k=k: noise(9 + k)(s, i), LMD, higher_is_better=False)
        write(tmp_path, name, made, tied, role=role)
    table = only(tmp_path)
    (weak,) = [one for one in table.answer.ranked.findings if one.worse[0] == "b"]
    found = answer_text(table)
    assert weak.p < 0.05 < weak.p_table and not weak.holds_in_table
    assert f"{weak.p:.3f}{WEAK})" in found.lead and f"{WEAK}: it no longer holds" in found.note
    assert "all 6 comparisons" in found.note


def test_a_difference_from_the_ground_truth_that_does_not_hold_over_all_metrics_is_explained(tmp_path: Path) -> None:
    levels = {"truth": (STEP, "ceiling"), "a": (0.0, "method"), "b": (-9.0, "method"), "c": (-9.0, "method")}
    for k, (name, (level, role)) in enumerate(levels.items()):
        made = rows(name, lambda s, i, x=level, k=k: x + noise(k)(s, i), EA)
        tied = rows(name, lambda s, i, k=k: noise(9 + k)(s, i), LMD, higher_is_better=False)
        write(tmp_path, name, made, tied, role=role)
    found = answer_text(only(tmp_path))
    assert WEAK in " ".join(found.ceiling) and WEAK not in found.lead + str(found.lines)
    assert f"{WEAK}: it no longer holds" in found.note and found.footnote.startswith(WEAK)


def test_a_floor_and_a_method_above_the_ceiling_are_named(tmp_path: Path) -> None:
    """By EA, a floor is better than the method, and both the method and the floor are above the ground truth."""
    for k, (name, level, role) in enumerate((("truth", 0.0, "ceiling"), ("a", 1.0, "method"), ("f", 2.0, "floor"))):
        write(tmp_path, name, rows(name, lambda s, i, x=level, k=k: x + noise(k)(s, i), EA), role=role)
    found = answer_text(only(tmp_path))
    assert plain(found.lines[0][1]) == "the floor f is better than a (p < 0.001)"
    assert list(map(plain, found.ceiling)) == [
        "By EA, no method is shown to be worse than truth.",
        "a is better than truth by EA (p < 0.001).",
    ]
    write(tmp_path / "alone", "a", rows("a", noise(1), EA))
    assert answer_text(only(tmp_path / "alone")).lead.startswith("Fewer than two methods have scores")


def test_the_answer_is_the_first_thing_on_the_page_and_is_escaped(tmp_path: Path) -> None:
    make_board(tmp_path / "r")
    write(tmp_path / "r", "<i>evil</i>", rows("evil", lambda s, i: 5.0 + noise(77)(s, i), EA))
    page = build(tmp_path / "r", tmp_path / "out").read_text()
    start, table = page.index('<p class="lead">'), page.index('<table class="scores"')
    assert start < table and "<i>evil" not in page
    assert "<b>&lt;i&gt;evil&lt;/i&gt;</b> is better than" in page[start:table]


def test_what_is_not_asked_is_said_once_and_the_markdown_has_the_answer(tmp_path: Path) -> None:
    """`emotion_leak` does not apply to a pair for every method; one method also failed on another pair."""
    for k in range(4):
        made = rows(f"m{k}", lambda s, i, k=k: noise(k)(s, i), "emotion_leak:fer", higher_is_better=False)
        made[0] = replace(made[0], value=None, reason="not-asked", detail="the reference shows the target emotion")
        if not k:
            made[1] = replace(made[1], value=None, reason="no-face", detail="no face")
        write(tmp_path / "r", f"m{k}", made)
    out = build(tmp_path / "r", tmp_path / "out").parent
    page, text = (out / "index.html").read_text(), (out / "board.md").read_text()
    sentence = "Not asked: emotion_leak:fer does not apply to 1 pair (every method). For example, "
    assert page.count(sentence) == 1 and text.count(sentence) == 1
    assert "<code>not-asked</code>" not in page and page.count("<code>no-face</code>") == 1
    assert "| m0 | emotion_leak:fer | 1 | no-face |" in text
    assert text.index("By 1 metric, no method is better than every other method.") < text.index("| Method |")


def test_a_long_answer_is_short_at_first_and_nothing_is_lost(tmp_path: Path) -> None:
    metrics = ("ea:fer", "psnr:frame-mean", "psnr:lower-half", "ssim:y", "ssim:wang2004", "csim:dlib", "psnr:mouth")
    for k in range(9):
        made = [rows(f"m{k}", lambda s, i, k=k, c=c: k + noise(9 * c + k)(s, i), m) for c, m in enumerate(metrics)]
        write(tmp_path, f"m{k}", *made, role="ceiling" if not k else "method")
    found = answer_text(only(tmp_path))
    assert len(found.lines) == len(metrics) and [name for name, _ in found.short] == [
        "EA",
        *[n for n, _ in found.lines[1:3]],
    ]
    assert all(text.startswith(first) for (_, first), (_, text) in zip(found.short, found.lines[:3], strict=True))
    assert all(len(first) < 200 for _, first in found.short)
    page = build(tmp_path, tmp_path / "board").read_text()
    shown, _, folded = page[page.index('class="card answer"') :].partition('<details class="rest">')
    assert shown.count("<dt>") == 3 and len(shown) < 2000
    for _, text in found.lines:
        assert text.replace("\u2068", "<b>").replace("\u2069", "</b>") in folded.replace("&lt;", "<")
    short = make_board(tmp_path / "short")
    assert short.short == () and len(short.lines) == 2
