"""Tables for papers and READMEs: bold by an independent test, coverage, safe LaTeX, compiled where TeX is installed."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cmet_eval import cli
from cmet_leaderboards.latex import latex, to_latex
from cmet_leaderboards.paper import PaperOptions, PaperTable, chosen_tables, paper_tables
from cmet_leaderboards.readme import to_readme
from cmet_leaderboards.results import read_results, write_results
from cmet_leaderboards.row import ResultRow
from cmet_leaderboards.standing import add_results
from cmet_leaderboards.tables import build_tables
from talking_face.reasons import UserError

SPEAKERS, EMOTIONS = tuple("ABCDEFGH"), ("neutral", "happy", "sad")
SIGNATURES = {
    "psnr:frame-mean": "psnr|variant:frame-mean|version:1.0.0",
    "ea:corpus": "ea|variant:corpus|version:1.0.0",
}
HOSTILE = r"50% & $x_1$ #{a}~^\b <i> |c| @d → ∞ “é”"
# Method -> its role and its mean of PSNR; the means of EA are all the same.
METHODS = {"truth": ("ceiling", 40.0), "best": ("method", 30.0), "rival": ("method", 29.95), "mid": ("method", 27.0)}
METHODS |= {"weak": ("method", 25.0), "still": ("floor", 20.0)}
Edit = Callable[[dict[str, Any]], None]


def rows(method: str, edit: Edit | None = None) -> list[ResultRow]:
    rng = np.random.default_rng(sorted(METHODS).index(method))
    made = []
    for (speaker, emotion), (metric, signature) in itertools.product(
        itertools.product(SPEAKERS, EMOTIONS), SIGNATURES.items()
    ):
        level = METHODS[method][1] if metric.startswith("psnr") else 0.5
        row = {
            **{"setting": "neutral-base", "method": method, "revision": "1", "seed": 0, "intensity": 1},
            **{"pair_id": f"neutral-base/{speaker}/{emotion}", "speaker": speaker, "target_emotion": emotion},
            **{"reference_emotion": "neutral", "ground_truth_clip": f"{speaker}/{emotion}", "metric": metric},
            **{"signature": signature, "higher_is_better": True, "unit": "dB" if level > 1 else "", "reason": None},
            **{"value": level + float(rng.normal(0, 0.2)), "detail": "", "n": 50, "stats": {}, "notes": ""},
            **{"codec": "", "video_sha256": "0" * 64, "dataset": "mead", "data_digest": "d" * 32},
            **{"data_signature": "shards|v:1", "pairs_digest": "p" * 16, "rules": "r" * 8, "profile": "embedded"},
            "suite_version": "0.1.0",
        }
        if edit:
            edit(row)
        made.append(ResultRow.of(row))
    return made


def lose(row: dict[str, Any]) -> None:
    if row["method"] == "mid" and row["metric"].startswith("psnr") and row["speaker"] == "A":
        row.update(value=None, reason="no-face")
    if row["method"] == "weak" and row["metric"].startswith("ea") and row["speaker"] > "C":
        row.update(value=None, reason="no-face")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("run") / "results"
    for method, (role, _) in METHODS.items():
        title = HOSTILE if method == "rival" else method.title()
        facts = {"method": {"name": method, "title": title, "role": role}, "setting": {"title": "Neutral_base"}}
        write_results(rows(method, lose), results, facts)
    return results


def papers(folder: Path, **options: Any) -> list[PaperTable]:
    return paper_tables(build_tables(read_results(folder)), PaperOptions(**options))


def leading(folder: Path, metric: str) -> set[str]:
    """The methods that scipy's paired t-test with Holm's correction does not separate from the best mean."""
    frame = read_results(folder).frame()
    frame = frame[(frame["metric"] == metric) & (frame["method"] != "truth")]
    wide = frame.pivot(index=["speaker", "pair_id"], columns="method", values="value")
    wide = wide.loc[:, wide.notna().mean() >= 0.5].dropna()  # the others are not compared
    means = wide.groupby("speaker").mean()
    pairs = list(itertools.combinations(means.columns, 2))
    p = {pair: stats.ttest_rel(means[pair[0]], means[pair[1]]).pvalue for pair in pairs}
    corrected, worst = dict[frozenset[str], float](), 0.0
    for i, pair in enumerate(sorted(pairs, key=p.__getitem__)):
        worst = max(worst, min(1.0, p[pair] * (len(pairs) - i)))
        corrected[frozenset(pair)] = worst
    best = str(wide.mean().idxmax())
    group = {best} | {m for m in means.columns if m != best and corrected[frozenset((best, m))] >= 0.05}
    return group if 2 * len(group) <= len(means.columns) else set()


def test_bold_is_the_best_and_what_the_test_does_not_separate_from_it(folder: Path) -> None:
    (table,) = papers(folder)
    titles = {HOSTILE: "rival"}
    assert [column.name for column in table.columns] == ["EA", "PSNR"]
    for i, metric in enumerate(("ea:corpus", "psnr:frame-mean")):
        bold = {
            titles.get(row.title, row.title.lower()) for group in table.groups for row in group if row.cells[i].bold
        }
        assert bold == leading(folder, metric) == ({"best", "rival"} if i else set())
    assert [[row.role for row in group] for group in table.groups] == [["ceiling"], [""] * 4, ["floor"]]


def test_coverage_is_in_the_head_or_in_the_cell_that_differs(folder: Path) -> None:
    (table,) = papers(folder, metrics=["psnr:frame-mean"], intervals=True)
    # The mean of every compared method is over the pairs that all of them have.
    (column,) = table.columns
    assert column.label == "PSNR (frame-mean, dB, 21/24 pairs) ↑"
    cells = {row.title: row.cells[0] for group in table.groups for row in group}
    assert not any(cell.coverage for cell in cells.values())
    every = [row for group in papers(folder)[0].groups for row in group]
    assert {row.title: row.cells[0].coverage for row in every if row.cells[0].coverage} == {
        "Weak": "9/24 · not compared"
    }
    assert float(cells["Best"].half) > 0 and not papers(folder)[0].groups[0][0].cells[0].half
    caption = " ".join(table.notes)
    for text in ("24 pairs", "8 speakers", "pair list pppppppp", "21 to 24 of 24 pairs", "PSNR (frame-mean) "):
        assert text in caption, text
    digest = subprocess.run(["sha256sum"], input=SIGNATURES["psnr:frame-mean"].encode(), capture_output=True).stdout
    assert table.signatures[0][1] == digest.decode()[:8] and digest.decode()[:8] in caption


def test_names_that_are_not_on_the_board_have_a_hint(folder: Path) -> None:
    tables = build_tables(read_results(folder))
    with pytest.raises(UserError, match=r"no setting 'neutral' on this board; did you mean neutral-base\?; there are"):
        chosen_tables(tables, PaperOptions(settings=["neutral"]))
    with pytest.raises(UserError, match=r"no metric 'psnr' on this board.*there are ea:corpus, psnr:frame-mean"):
        chosen_tables(tables, PaperOptions(metrics=["psnr"]))


# -- LaTeX -------------------------------------------------------------------------------------------------------------

COMMANDS = {
    *("begin", "end", "centering", "caption", "label", "smallskip", "small", "setlength", "tabcolsep", "toprule"),
    *("midrule", "bottomrule", "shortstack", "scriptsize", "strut", "uparrow", "downarrow", "rightarrow", "pm"),
    *("infty", "cdot", "textbf", "textit", "textbackslash", "textasciitilde", "textasciicircum", "textless"),
    *("textgreater", "textbar"),
}


def check_latex(text: str) -> list[list[str]]:
    """Parses a table without TeX: environments, braces, commands, and the number of cells of each row; the rows."""
    text = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert set(re.findall(r"\\([A-Za-z]+)", text)) <= COMMANDS
    bare = re.sub(r"\\[\\{}%&$#_]", "", text)
    depth = 0
    for char in bare:
        depth += {"{": 1, "}": -1}.get(char, 0)
        assert depth >= 0
    assert depth == 0 and bare.count("$") % 2 == 0 and not re.search(r"[%#~^]", bare)
    assert (not re.search("_", re.sub(r"\\label\{[^}]*\}", "", bare)) and text.isprintable) or "\n" in text
    opened = re.findall(r"\\begin\{(.*?)\}", text)
    assert sorted(opened) == sorted(re.findall(r"\\end\{(.*?)\}", text))
    found = []
    for body in re.findall(r"\\begin\{tabular\}\{(l(?:r+))\}\n(.*?)\\end\{tabular\}", text, flags=re.S):
        columns, lines = body
        for line in lines.splitlines():
            if not line.endswith(r"\\"):
                assert line in (r"\toprule", r"\midrule", r"\bottomrule"), line
                continue
            cells = re.split(r"(?<!\\) & ", line.removesuffix(r" \\"))
            assert len(cells) == len(columns), line
            found.append(cells)
    return found


def test_latex_can_be_parsed_and_no_title_is_a_command(folder: Path) -> None:
    text = to_latex(papers(folder, intervals=True))
    lines = check_latex(text)
    assert len(lines) == 1 + len(METHODS) and latex(HOSTILE) in {line[0] for line in lines}
    assert r"\textbf{" in text and r"{\scriptsize $\pm$ " in text and r"\caption{Neutral\_base. 24 pairs" in text
    assert text.startswith("% ") and SIGNATURES["ea:corpus"] in text  # the whole signatures, as comments
    assert text == to_latex(papers(folder, intervals=True))
    every = "".join(map(chr, range(32, 127)))
    assert len(check_latex("\\begin{tabular}{lr}\n" + latex(every) + r" & 1 \\" + "\n\\end{tabular}")) == 1


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
def test_latex_compiles(folder: Path, tmp_path: Path) -> None:
    every = latex(" ".join(map(chr, range(32, 127))))
    body = to_latex(papers(folder, intervals=True)) + to_latex(papers(folder)) + every
    head = "\\documentclass{article}\\usepackage[margin=2cm]{geometry}\\usepackage{booktabs}\\begin{document}\n"
    (tmp_path / "a.tex").write_text(head + body + "\n\\end{document}\n")
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "a.tex"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout, re.findall("Overfull.*", done.stdout)


# -- Markdown, BibTeX, and the command ---------------------------------------------------------------------------------


def test_markdown_for_a_readme_is_one_table_and_one_caption(folder: Path) -> None:
    lines = to_readme(papers(folder)).rstrip("\n").split("\n")
    table = [line for line in lines if line.startswith("|")]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table]
    assert {len(line) for line in cells} == {3} and len(table) == 2 + len(METHODS)
    assert lines[0] == "### Neutral_base" and len(lines) == len(table) + 4
    assert not re.search(r"<i>", "\n".join(lines)) and "| **29.96** |" in "\n".join(table)


def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str | Path
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["cmet-eval", "leaderboard", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    shown = capsys.readouterr()
    return int(end.value.code or 0), shown.out, shown.err


def test_the_command_prints_each_form_and_writes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(folder.parent.rglob("*"))
    run = ("--run", folder.parent)
    status, out, _ = command(monkeypatch, capsys, *run, "--format", "latex", "--columns", "psnr:frame-mean")
    assert status == 0 and {len(line) for line in check_latex(out)} == {2}
    status, out, _ = command(monkeypatch, capsys, *run, "--format", "markdown", "--setting", "neutral-base")
    assert status == 0 and out.startswith("### Neutral_base\n")
    status, out, _ = command(monkeypatch, capsys, *run, "--format", "bibtex")
    entries = re.findall(r"^@(\w+)\{([\w-]+),$", out, flags=re.M)
    assert status == 0 and ("software", "cmet-eval") in entries and any("psnr" in key for _, key in entries)
    assert len(set(entries)) == len(entries) == out.count("@") and "not in the catalogue" in out
    assert sorted(folder.parent.rglob("*")) == before
    for words, text in (
        (("--format", "latex", "--out", "x"), "--out is not an option of `cmet-eval leaderboard --format`"),
        (("--intervals",), "--intervals is not an option of `cmet-eval leaderboard`"),
        (("--format", "latex", "--columns", "pnsr:frame-mean"), "did you mean psnr:frame-mean?"),
    ):
        status, _, err = command(monkeypatch, capsys, *run, *words)
        assert status == 2 and text in err and err.count("\n") == 1, err


def test_the_standing_leaderboard_gives_the_same_tables(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_results(read_results(folder), tmp_path / "results")
    words = ("--format", "latex", "--intervals")
    printed = [command(monkeypatch, capsys, "--run", place, *words) for place in (folder.parent, tmp_path / "results")]
    assert printed[0] == printed[1] and printed[0][0] == 0
