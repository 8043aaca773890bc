"""Build the site of the standing leaderboard from its rows, or add the rows of a run first.

Examples:
    cmet-eval standing
    cmet-eval standing --add work/seed0 --training-seed 0
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmet_eval.checks import check_file, check_folder, check_out
from cmet_eval.commands.options import BandsFile, BandsSource, MethodFolders, refuse_unused
from cmet_eval.run_folder import FoundRun, run_folder
from talking_face.reasons import UserError

if TYPE_CHECKING:
    from cmet_leaderboards.results import Results
    from cmet_leaderboards.site_views import MethodAbout

_HOME = Path(__file__).parents[2] / "leaderboards"  # in a source tree
_ROWS, _SITE = _HOME / "results", _HOME / "site"
_OF_ADD = ("training_seed", "data", "cases", "videos")


def standing(  # long: one parameter per option
    ctx: typer.Context,
    results: Annotated[
        Path,
        typer.Option("--results", metavar="FOLDER", help="the rows; default: leaderboards/results", show_default=False),
    ] = _ROWS,
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="the site; default: leaderboards/site", show_default=False)
    ] = _SITE,
    add: Annotated[
        Path | None, typer.Option("--add", metavar="RUN", help="add the rows of this run; run it where RUN was made")
    ] = None,
    training_seed: Annotated[
        int | None,
        typer.Option(
            "--training-seed", min=0, metavar="N", help="with --add: the seed of the run's trained methods, for means"
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="SHARDS", help="with --add: the shard set of the run; default: RUN/shards"),
    ] = None,
    cases: Annotated[
        int, typer.Option("--gallery", min=0, metavar="N", help="with --add: pairs whose videos are stored; 0: none")
    ] = 0,
    videos: MethodFolders = None,
    bands: BandsFile = None,
    bands_of: BandsSource = None,
) -> None:
    if add is None:
        refuse_unused(ctx, _OF_ADD, "standing` without `--add")
    elif not cases:
        refuse_unused(ctx, ("videos",), "standing --add` without `--gallery")
    if bands is not None:
        check_file(bands, "--bands")
    if data is not None:
        check_folder(data, "--data")
    if add is None and not results.is_dir():
        raise UserError(f"no folder {results}; give the rows with --results, or add a run with --add RUN")
    check_out(out, "--out", {"--results": results})
    if add is not None:
        _add(run_folder(add), results, data, training_seed, videos or [], cases)
    _build(results, out, bands, bands_of)


def _add(run: FoundRun, results: Path, data: Path | None, seed: int | None, videos: list[str], cases: int) -> None:
    from cmet_eval.bundles.environment import environment
    from cmet_eval.reports.gallery import gallery
    from cmet_eval.reports.method_videos import MethodVideos
    from cmet_eval.reports.standing import evaluator_cards, trained_methods
    from cmet_leaderboards.results import read_results
    from cmet_leaderboards.standing import Provenance, add_results
    from cmet_leaderboards.standing_files import folder_of
    from cmet_leaderboards.standing_videos import add_videos, check_drawn

    rows = read_results(run.results)
    folders = MethodVideos.of(videos, run.folder / "videos", rows.methods)
    if cases:
        for key in rows.keys:
            check_drawn(folder_of(key), key["origin"])
    about = Provenance(
        environment=environment().facts(),
        evaluators=evaluator_cards(data or run.folder / "shards"),
        training_seeds={} if seed is None else dict.fromkeys(trained_methods(rows), seed),
    )
    paths = add_results(rows, results, about)
    print(f"{len(paths)} records of {len({path.parent for path in paths})} boards are in {results}")
    if cases:
        shown = gallery(rows, folders, cases)
        added = (
            add_videos(shown.get(key["setting"], ()), results / folder_of(key), key["origin"]) for key in rows.keys
        )
        print(f"{sum(added)} videos added")


def _build(results: Path, out: Path, bands: Path | None, bands_of: str | None) -> None:
    from cmet_baselines.published import published_rows
    from cmet_eval.commands.cite import SUITE, bibliography
    from cmet_eval.reports.standing import method_facts, runnable_methods
    from cmet_leaderboards.bands import load_bands
    from cmet_leaderboards.site import build_site

    def about(rows: Results) -> dict[str, MethodAbout]:
        return method_facts(rows, lambda name: bibliography([name]))

    ours, found = bibliography([SUITE]), load_bands(bands, bands_of)
    print(build_site(results, out, found, published_rows(), about, ours, runnable_methods()))
