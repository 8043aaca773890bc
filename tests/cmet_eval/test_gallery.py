"""The gallery: the same pairs by every method, played in step in a browser, the same bytes each time."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from cmet_eval.protocol.pairs import pair_file_name
from cmet_eval.reports.gallery import ScoredPair, choose, gallery
from cmet_eval.reports.method_videos import MethodVideos
from cmet_eval.reports.pair_videos import pair_videos
from cmet_leaderboards.board import build
from cmet_leaderboards.results import read_results, write_results
from cmet_leaderboards.views import GalleryCase
from talking_face.files import sha256_of
from talking_face.media.writing import write_video
from talking_face.reasons import UserError
from tests.browser import needs_chromium, visit
from tests.cmet_eval.test_study import make_pairs
from tests.leaderboards.test_page_in_browser import make_rows

PROBE = """
const player = document.querySelector(".player");
const loaded = (v) => new Promise((r) => v.addEventListener("loadeddata", r));
const ready = () => [...player.querySelectorAll("video")].map(loaded);
const seen = {before: player.querySelectorAll("video").length};
player.scrollIntoView();
const start = async () => {
  while (!player.querySelector("video")) await new Promise((r) => requestAnimationFrame(r));
  seen.titles = [...player.querySelectorAll("figcaption")].map((e) => e.textContent);
  const [first] = player.querySelectorAll(".methods input");
  first.click(); seen.fewer = [...player.querySelectorAll("video")].length; first.click();
  await Promise.all(ready());
  const films = [...player.querySelectorAll("video")];
  player.querySelector(".play").click();
  // Media run by a clock of their own here, and a busy machine paints seldom: wait for the films, not for a time.
  // Once all play, the second is put two seconds off, and the page has until an end to bring it back.
  let pushed = false;
  const later = () => {
    const at = films.map((v) => v.currentTime), off = Math.max(...at) - Math.min(...at);
    const ended = films.some((v) => v.ended);
    if (!pushed && Math.min(...at) > 0) {
      pushed = true;
      films[1].currentTime += 2;
      seen.pushed = films[1].currentTime - films[0].currentTime;
    } else if (ended || (pushed && off <= 0.1)) {
      const gone = !player.querySelector(".gone").hidden;
      report({...seen, off, ended, gone, muted: films.map((v) => v.muted), width: films[0].videoWidth});
      return;
    }
    requestAnimationFrame(later);
  };
  later();
};
start();
"""


def make_run(folder: Path) -> Path:
    """Two methods, one of which lacks the second of three pairs; a damaged video."""
    pairs = [dataclasses.replace(p, setting="neutral-base") for p in make_pairs(3)]
    for m, method in enumerate(("first", "ground-truth")):
        rows = []
        for k, pair in enumerate(pairs):
            path = folder / "videos" / method / "neutral-base" / f"{pair_file_name(pair.pair_id)}.mp4"
            if (m, k) == (0, 1):
                continue
            write_video(path, np.full((200, 64, 64, 3), 50 * m + 9 * k, np.uint8), 25, np.zeros(128000, np.int16))
            rows += [
                dataclasses.replace(row, pair_id=pair.pair_id, speaker=pair.speaker, video_sha256=sha256_of(path))
                for row in make_rows(method, 1.0 + m)[:2]
            ]
        write_results([*rows, *make_rows(method, 1.0 + m)], folder / "results", {"method": {"title": method.title()}})
    path.write_bytes(b"damaged")
    return folder


def gallery_of(run: Path, *videos: str) -> dict[str, list[GalleryCase]]:
    rows = read_results(run / "results")
    return gallery(rows, MethodVideos.of(videos, run / "videos", rows.methods))


def test_every_scored_video_next_to_the_board_has_an_address(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    rows = read_results(run / "results")
    videos = MethodVideos(run / "videos")
    found = pair_videos(rows, videos, run / "board")
    # Two methods by three pairs: `first` lacks the second pair, and the last video of the ground truth is damaged.
    assert sorted((method, pair.split("/")[1]) for _, method, pair in found) == [
        ("first", "P0"), ("first", "P2"), ("ground-truth", "P0"), ("ground-truth", "P1")
    ]  # fmt: skip
    assert all((run / "board" / unquote(address)).resolve().is_file() for address in found.values())
    assert all(address.startswith("../videos/") for address in found.values())
    assert pair_videos(rows, videos, tmp_path / "elsewhere" / "board") == {}, "no name of a folder of this machine"
    page = build(rows, run / "board", gallery=gallery_of(run), videos=found)
    (script,) = page.parent.glob("pairs-*.js")
    data = json.loads(script.read_text().partition(",")[2].rpartition(")")[0])
    played = {address for line in data["videos"] for address in line if address}
    assert len(played) == 4 and all(address.startswith("videos/") for address in played), "the gallery's copies first"


def test_pairs_that_all_methods_have_come_first(tmp_path: Path) -> None:
    pairs = [ScoredPair(p.pair_id, p.speaker, p.reference_emotion, p.target_emotion) for p in make_pairs(3)]
    files = {(p.pair_id, m): tmp_path for p in pairs for m in "ab" if (p.speaker, m) != ("P0", "a")}
    assert [p.speaker for p in choose(pairs, "ab", files, 2)] == ["P1", "P2"]
    assert [p.speaker for p in choose(pairs, "ab", files, 9)] == ["P1", "P2", "P0"]


def test_the_users_own_folder_is_played_whatever_its_files_are_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, mine = make_run(tmp_path / "run"), tmp_path / "mine"
    (mine / "deep").mkdir(parents=True)
    for k, file in enumerate(sorted((run / "videos" / "first" / "neutral-base").iterdir())):
        file.rename(mine / "deep" / f"take {k}.mp4")
    assert [len(case["videos"]) for case in gallery_of(run)["neutral-base"]] == [1, 1]
    shown = gallery_of(run, f"first={mine}")["neutral-base"]
    assert [video["method"] for video in shown[0]["videos"]] == ["ground-truth", "first"]
    (mine / "deep" / "take 0.mp4").rename(mine / f"{pair_file_name(shown[0]['pair'])}.mp4")
    (mine / f"{pair_file_name(shown[0]['pair'])}.mp4").write_bytes(b"changed")
    capsys.readouterr()
    assert [len(case["videos"]) for case in gallery_of(run, f"first={mine}")["neutral-base"]] == [1, 1, 1]
    assert "another video than was scored" in capsys.readouterr().err
    with pytest.raises(UserError, match="did you mean first"):
        gallery_of(run, f"frist={mine}")


@needs_chromium
def test_the_gallery_plays_in_step(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    shown = gallery_of(run)
    assert [len(case["videos"]) for case in shown["neutral-base"]] == [2, 1, 1]  # all; one damaged; one missing
    page = build(run / "results", tmp_path / "a", gallery=shown)
    text = page.read_text()
    assert build(run / "results", tmp_path / "b", gallery=gallery_of(run)).read_text() == text
    files = {path.name: path.read_bytes() for path in (tmp_path / "a" / "videos").iterdir()}
    assert len(files) == 4 and {p.name: p.read_bytes() for p in (tmp_path / "b" / "videos").iterdir()} == files
    assert all(Path(name).stem in text for name in files) and len(text) < 200_000, "videos are not in the page"
    options = ("--autoplay-policy=no-user-gesture-required",)
    seen, console = visit(text, PROBE, tmp_path / "a" / "probe.html", *options)
    assert seen["errors"] == [] and console == "" and not seen["gone"]
    assert seen["titles"] == ["First", "Ground-Truth"] and seen["fewer"] == 1 and seen["width"] == 64
    assert seen["pushed"] > 1 and not seen["ended"] and seen["off"] <= 0.1
    assert seen["muted"] == [False, True]
    build(run / "results", tmp_path / "a")
    assert list((tmp_path / "a" / "videos").iterdir()) == [], "videos that no page plays are removed"
