"""Build every board (HTML, Markdown, CSV, Parquet, JSON) from the result rows of a run.

With --format, no file is written: the tables for a paper or a README are printed, or the BibTeX of the methods, metrics
and data of the board.

Examples:
    cmet-eval leaderboard
    cmet-eval leaderboard --run work/demo --videos cmet=my-videos --out board
    cmet-eval leaderboard --format latex --columns ea:corpus --intervals
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cmet_eval.checks import check_file, check_out
from cmet_eval.commands.cite import bibliography_of
from cmet_eval.commands.options import (
    BandsFile,
    BandsSource,
    MethodFolders,
    OwnMetrics,
    RunToRead,
    refuse_unused,
)
from cmet_eval.run_folder import run_folder

if TYPE_CHECKING:  # imports PyArrow
    from cmet_leaderboards.bands import Bands
    from cmet_leaderboards.paper import PaperOptions
    from cmet_leaderboards.results import Results

Form = Literal["latex", "markdown", "bibtex"]
_OF_FILES = ("out", "cases", "videos")  # options without effect on what --format prints
_OF_FORMAT = ("settings", "columns", "intervals")


# long: typer turns each parameter into a command-line option
def leaderboard(
    ctx: typer.Context,
    run: RunToRead = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="folder for the boards; default: RUN/leaderboard")
    ] = None,
    bands: BandsFile = None,
    bands_of: BandsSource = None,
    cases: Annotated[
        int,
        typer.Option("--gallery", min=0, metavar="N", help="pairs of a setting whose videos the page plays; 0: none"),
    ] = 4,
    videos: MethodFolders = None,
    form: Annotated[
        Form | None,
        typer.Option("--format", metavar="latex|markdown|bibtex", help="print tables for a paper or README, or BibTeX"),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--setting", metavar="NAME", help="with --format: only this setting; repeatable"),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--columns", metavar="KEY", help="with --format: only this metric; repeatable, in this order"),
    ] = None,
    intervals: Annotated[
        bool, typer.Option("--intervals", help="with --format: half of each 95% interval after the mean")
    ] = False,
    metrics: OwnMetrics = None,
) -> None:
    refuse_unused(ctx, _OF_FILES if form else _OF_FORMAT, "leaderboard --format" if form else "leaderboard")
    found = run_folder(run)
    out = out or found.folder / "leaderboard"
    if form is None:
        check_out(out, "--out", {"--run": found.folder})
    if bands is not None:
        check_file(bands, "--bands")
    from cmet_baselines.published import published_rows
    from cmet_eval.reports.gallery import gallery
    from cmet_eval.reports.method_videos import MethodVideos
    from cmet_eval.reports.pair_videos import pair_videos
    from cmet_leaderboards.bands import load_bands
    from cmet_leaderboards.board import build
    from cmet_leaderboards.paper import PaperOptions
    from cmet_metrics.registry import get_metric

    for key in metrics or ():
        get_metric(key)
    noise = load_bands(bands, bands_of)
    rows = _read(found.results)
    if form is not None:
        print(_printed(form, rows, noise, PaperOptions(settings or (), columns or (), intervals)).rstrip("\n"))
        return
    folders = MethodVideos.of(videos or [], found.folder / "videos", rows.methods)
    shown = gallery(rows, folders, cases) if cases else None
    print(build(rows, out, noise, shown, published_rows(), pair_videos(rows, folders, out)))


def _read(path: Path) -> Results:
    """The result rows of a run, or of the standing leaderboard."""
    from cmet_leaderboards.results import read_results
    from cmet_leaderboards.standing import read_boards, results_of

    boards = read_boards(path)
    return results_of(boards, path) if boards else read_results(path)


def _printed(form: Form, rows: Results, bands: Bands | None, options: PaperOptions) -> str:
    """What --format prints. Raises UserError if a setting or a metric is not on the board."""
    from cmet_leaderboards.bands import Bands
    from cmet_leaderboards.latex import to_latex
    from cmet_leaderboards.paper import chosen_tables, paper_tables
    from cmet_leaderboards.readme import to_readme
    from cmet_leaderboards.tables import build_tables

    tables = build_tables(rows, bands or Bands())
    if form == "bibtex":
        return bibliography_of(chosen_tables(tables, options))
    papers = paper_tables(tables, options)
    return to_latex(papers) if form == "latex" else to_readme(papers)
