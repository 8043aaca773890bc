"""Tests ranks, ties, noise bands, contradictory rows and the sections below the scores, on hand-made rows."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fastjsonschema
import numpy as np
import pyarrow.parquet as pq
import pytest

from cmet_leaderboards.bands import Bands, read_bands
from cmet_leaderboards.board import build
from cmet_leaderboards.compare import compare
from cmet_leaderboards.export import SCHEMA_FILE, records, to_json
from cmet_leaderboards.results import read_results, write_results
from cmet_leaderboards.row import ResultRow
from cmet_leaderboards.tables import Table, build_tables
from talking_face.reasons import UserError

SPEAKERS, EMOTIONS = tuple("ABCD"), ("neutral", "happy", "sad")
# speaker index, pair index -> value
Values = Callable[[int, int], float]


def rows(method: str, values: Values, metric: str = "psnr:frame-mean", **more: Any) -> list[ResultRow]:
    out = []
    cells = itertools.product(range(len(SPEAKERS)), enumerate(itertools.permutations(EMOTIONS, 2)))
    for s, (i, (reference, target)) in cells:
        out.append(
            ResultRow.of(
                {
                    **{"setting": "cross-emotion", "method": method, "revision": "1", "seed": 0, "intensity": 1},
                    **{
                        "pair_id": f"{SPEAKERS[s]}/{reference}>{target}",
                        "speaker": SPEAKERS[s],
                        "target_emotion": target,
                    },
                    **{
                        "reference_emotion": reference,
                        "ground_truth_clip": "c",
                        "metric": metric,
                        "n": 50,
                        "unit": "x",
                    },
                    **{"signature": f"{metric}|version:1", "higher_is_better": True, "value": values(s, i)},
                    **{"reason": None, "detail": "", "stats": {}, "notes": "", "codec": "h264", "video_sha256": method},
                    **{"dataset": "mead", "data_digest": "d", "data_signature": "s", "pairs_digest": "p", "rules": "r"},
                    **{"profile": "embedded", "suite_version": "0.1.0"},
                    **more,
                }
            )
        )
    return out


def write(folder: Path, method: str, *made: list[ResultRow], role: str = "method") -> None:
    for part in made:
        write_results(part, folder, {"method": {"title": method, "role": role}, "setting": {"title": "T"}})


def only(folder: Path, bands: Bands | None = None) -> Table:
    (table,) = build_tables(read_results(folder), bands or Bands())
    return table


def ranked(table: Table, c: int = 0) -> dict[str, tuple[int | None, dict[str, str]]]:
    return {r.method: (r.cells[c].rank, dict(r.cells[c].ties)) for r in table.rows if r.cells[c] is not None}


def noise(seed: int) -> Values:
    return lambda s, i: float(np.random.default_rng([seed, s, i]).normal(0, 0.1))


def test_ranks_tie_by_the_test_and_by_the_noise_band(tmp_path: Path) -> None:
    """Speaker offsets of +-5 have no effect: the test is paired. `a` is 1 above `b`; `c` is `b` with other noise."""
    speaker = (5.0, -5.0, 3.0, 0.0)
    for name, level, seed in (("a", 1.0, 1), ("b", 0.0, 2), ("c", 0.0, 3)):
        write(tmp_path, name, rows(name, lambda s, i, x=level, k=seed: speaker[s] + x + noise(k)(s, i)))
    write(tmp_path, "truth", rows("truth", lambda s, i: 50.0), role="ceiling")
    assert ranked(only(tmp_path)) == {
        "a": (1, {}), "b": (2, {"c": "tie"}), "c": (2, {"b": "tie"}), "truth": (None, {})
    }  # fmt: skip
    write(tmp_path / "same", "d", rows("d", noise(1)))
    write(tmp_path / "same", "e", rows("e", noise(1)))
    assert ranked(only(tmp_path / "same")) == {"d": (1, {"e": "tie"}), "e": (1, {"d": "tie"})}, "there is no band"
    shutil.rmtree(tmp_path / "same")
    wide = only(tmp_path, Bands({"psnr:frame-mean|version:1": 1.5}, "test"))
    assert {rank for rank, _ in ranked(wide).values()} == {1, None} and wide.bands == "test"
    assert ranked(wide)["a"] == (1, {"b": "noise", "c": "noise"})
    page = build(tmp_path, tmp_path / "out", Bands({"psnr:frame-mean|version:1": 1.5}, "test")).parent / "board.md"
    assert "#1 ≈" in page.read_text() and "Noise bands: test." in page.read_text()


@pytest.mark.parametrize("origin", ["drawn", "recorded", "unknown"])
def test_boards_and_compare_use_the_noise_bands_of_the_data_at_hand(tmp_path: Path, origin: str) -> None:
    """The band of drawn clips is wide here, and that of recordings is narrow. Of unknown data, the wide band holds."""
    for name, level in (("a", 1.0), ("b", 0.0)):
        write(tmp_path, name, rows(name, lambda s, i, x=level: x + noise(2)(s, i) * x, origin=origin))
    path = tmp_path / "bands.csv"
    path.write_text("metric,signature,unit,source,band\n" + "".join(
        f"p,psnr:frame-mean|version:1,,{source},{band}\n" for source, band in (("embedded", 9), ("real", 0.01))
    ))  # fmt: skip
    bands = read_bands(path)
    wide, about = origin != "recorded", {"drawn": ", source embedded", "recorded": ", source real", "unknown": ""}
    table = only(tmp_path, bands)
    (found,) = compare(read_results(tmp_path), "a", "b", bands=bands)
    assert found.metrics[0].paired
    assert table.comparisons[0][0].verdict == found.metrics[0].paired.verdict == ("noise" if wide else "first")
    assert table.bands == found.bands == bands.about + about[origin]
    path.write_text("metric,signature,unit,source,band\np,psnr:frame-mean|version:1,,real,9\n")
    assert bool(only(tmp_path, read_bands(path)).bands) == (origin != "drawn"), "bands of recordings only"


def test_a_metric_whose_best_value_is_one_ranks_by_the_distance_from_it(tmp_path: Path) -> None:
    for name, level in (("over", 1.8), ("right", 1.1), ("under", 0.7)):
        made = rows(name, lambda s, i, x=level: x + noise(s)(s, i) / 10, "jitter:ratio", ideal=1.0)
        write(tmp_path, name, made)
    table = only(tmp_path)
    assert {name: rank for name, (rank, _) in ranked(table).items()} == {"right": 1, "under": 2, "over": 3}
    cells = {row.method: row.cells[0] for row in table.rows}
    assert cells["right"] and cells["right"].best and cells["right"].mean == pytest.approx(1.1, abs=0.02)
    assert cells["under"] and cells["under"].loss == pytest.approx(0.3, abs=0.02)
    text = (build(tmp_path, tmp_path / "out").parent / "board.md").read_text()
    assert "→1" in text and "from 1" in text
    page = build(tmp_path, tmp_path / "out").read_text()
    (data,) = re.findall(r'<script type="application/json" id="[^"]*-cells">(.*?)</script>', page)
    keys = [method["cells"][0][0] for method in json.loads(data)["methods"]]
    by_distance = sorted(cell.loss for cell in cells.values() if cell and cell.loss is not None)
    assert sorted(keys) == pytest.approx(by_distance, abs=1e-6), (
        "a click on the column sorts by the distance from 1 too"
    )


def test_contradictory_rows_are_an_error_with_both_files_and_a_remedy(tmp_path: Path) -> None:
    write(tmp_path / "x", "a", rows("a", noise(1)))
    write(tmp_path / "y", "a", rows("a", noise(1), "ssim:wang2004", video_sha256="other"))
    with pytest.raises(UserError, match=r"a @ 1 was scored on two different videos of A/.*/x/.*/y/.*score all metrics"):
        read_results(tmp_path)
    other = tmp_path / "z"
    write(other, "a", rows("a", noise(1)))
    write(other, "b", rows("b", noise(1), unit="dB"))
    with pytest.raises(UserError, match=r"psnr:frame-mean\|version:1 disagree on .* unit: in .*a@1.*b@1.*remove"):
        read_results(other)


def test_tables_by_emotions_and_by_speaker_have_plain_means(tmp_path: Path) -> None:
    write(tmp_path, "a", rows("a", lambda s, i: 10.0 * s + i))
    table = only(tmp_path)
    (transfer,) = table.transfers
    (_, means, counts) = transfer.rows[0]
    # neutral > happy is the first of each speaker's pairs: 0, 10, 20, 30.
    assert means[transfer.references.index("neutral"), transfer.targets.index("happy")] == 15.0 and counts.sum() == 24
    assert np.isnan(means[0, 0]) and transfer.pairs[0, 0] == 0
    by_speaker = dict(zip(table.by_speaker[0].groups, table.by_speaker[0].rows[0][1], strict=True))
    assert by_speaker["B"] and by_speaker["B"].mean == 12.5 and by_speaker["B"].interval
    assert by_speaker["B"].interval.over == "clips"


def test_the_drop_compares_each_speaker_with_itself(tmp_path: Path) -> None:
    """Speakers differ by tens, but each falls by 2 +- 0.2: without pairing, the interval would be wider than that."""
    fall = (1.8, 2.2, 2.0, 2.0)
    for setting, less in (("neutral-base", 0.0), ("cross-emotion", 1.0)):
        made = rows("a", lambda s, i, x=less: 10.0 * s - x * fall[s], setting=setting, pairs_digest=setting)
        write(tmp_path, "a", made)
    for setting, order in (("neutral-base", 1), ("cross-emotion", -1)):
        made = rows("same", lambda s, i, k=order: 0.1 * (i if k > 0 else 5 - i), setting=setting, pairs_digest=setting)
        write(tmp_path, "same", made)
    cross = build_tables(read_results(tmp_path))[1]
    drop, none = cross.drops
    assert none.change.mean == 0 and none.change.p == 1, "the same values in another order"
    assert drop.change.mean == pytest.approx(2.0) and drop.change.interval and drop.change.interval.low > 1.7


def test_confusion_adds_the_stats_of_the_common_pairs(tmp_path: Path) -> None:
    made = rows("a", lambda s, i: 1.0, "ea:fer")
    counts = [{f"{row.target_emotion}>happy": 0.75, f"{row.target_emotion}>sad": 0.25} for row in made]
    write(tmp_path, "a", [replace(row, stats=stats) for row, stats in zip(made, counts, strict=True)])
    ((one,),) = only(tmp_path).confusions
    assert (one.targets, one.predictions) == (("neutral", "happy", "sad"), ("happy", "sad"))
    assert np.array_equal(one.clips, [[6.0, 2.0]] * 3)


def test_sensitivity_finds_the_conclusions_that_all_variants_share(tmp_path: Path) -> None:
    """Under the second variant, c moves from last to first; a before b holds under both."""
    for name, one, two in (("a", 3.0, 3.0), ("b", 2.0, 2.0), ("c", 1.0, 4.0)):
        for metric, level in (("psnr:frame-mean", one), ("psnr:other", two)):
            write(tmp_path, name, rows(name, lambda s, i, x=level: x + noise(7)(s, i) * 0.1 * x, metric))
    (found,) = only(tmp_path).sensitivity
    assert found.tau[0][1] == pytest.approx(-1 / 3) and found.tau[0][0] == 1.0 and found.methods[0][1] == 3
    assert found.agreed == ((("a", "1"), ("b", "1")),) and not found.partly and not found.open
    assert set(found.opposed) == {(("a", "1"), ("c", "1")), (("b", "1"), ("c", "1"))}


def test_json_follows_its_schema_and_parquet_holds_the_csv(tmp_path: Path) -> None:
    for setting in ("neutral-base", "cross-emotion"):
        for name, k in (("a", 1), ("b", 2), ("c", 3)):
            for metric in ("psnr:frame-mean", "psnr:other", "ea:fer"):
                made = rows(name, noise(k), metric, setting=setting, pairs_digest=setting)
                made = [replace(row, stats={f"{row.target_emotion}>sad": 1.0}) for row in made]
                made[k] = replace(made[k], value=None, reason="no-face", detail="none")
                write(tmp_path / "r", name, made)
    out = build(tmp_path / "r", tmp_path / "out", Bands({"psnr:frame-mean|version:1": 0.01}, "test")).parent
    document = json.loads((out / "board.json").read_text())
    validate = fastjsonschema.compile(json.loads(SCHEMA_FILE.read_text()))
    validate(document)
    for part in ("flows", "confusions", "drops", "sensitivity", "missing", "by_speaker"):
        assert document["tables"][1][part], part
    del document["tables"][0]["pairs"]
    with pytest.raises(fastjsonschema.JsonSchemaException, match="pairs"):
        validate(document)
    lines = (out / "board.csv").read_text().splitlines()
    table = pq.read_table(out / "board.parquet")
    assert table.num_rows == len(lines) - 1 and lines[0].split(",") == table.schema.names


def test_bands_are_read_by_source_or_the_largest(tmp_path: Path) -> None:
    path = tmp_path / "bands.csv"
    path.write_text("metric,signature,unit,source,band\np,s|v:1,,embedded,2\np,s|v:1,,real,3\n")
    assert read_bands(path).of("s|v:1") == 3 and read_bands(path, "embedded").of("s|v:1") == 2
    assert read_bands(path).of("other") == 0
    with pytest.raises(UserError, match="source 'x'"):
        read_bands(path, "x")
    path.write_text("metric,band\np,1\n")
    with pytest.raises(UserError, match="has no column signature, source"):
        read_bands(path)


def test_emotion_comes_first_where_the_pairs_ask_for_an_emotion(tmp_path: Path) -> None:
    higher = {"psnr:frame-mean": True, "ea:fer": True, "emotion_leak:fer": False, "m_lmd:eat": False}
    for name, emotions in (("emotional", {}), ("plain", {"target_emotion": "neutral"})):
        made = [rows("one", noise(0), metric=key, higher_is_better=up, **emotions) for key, up in higher.items()]
        write(tmp_path / name, "one", *made)
    found = {name: [c.metric for c in only(tmp_path / name).columns] for name in ("emotional", "plain")}
    assert found["emotional"] == ["ea:fer", "emotion_leak:fer", "psnr:frame-mean", "m_lmd:eat"]
    assert found["plain"] == ["psnr:frame-mean", "m_lmd:eat", "ea:fer", "emotion_leak:fer"]


def test_the_share_of_the_way_is_given_only_where_a_floor_is_worse_than_the_ground_truth(tmp_path: Path) -> None:
    for seed, (far, role) in enumerate([(1.0, "ceiling"), (5.0, "floor"), (3.0, "floor"), (2.0, "method")]):
        for metric, level in (("m_lmd:eat", far), ("f_lmd:eat", 1.0)):
            made = rows(f"m{seed}", lambda s, i: level + noise(seed)(s, i) / 10, metric=metric, higher_is_better=False)  # noqa: B023 (called here)
            write(tmp_path, f"m{seed}", made, role=role)
    table = only(tmp_path)
    separated, not_separated = table.ways
    assert (separated.truth, separated.floor, separated.missing) == (0, 2, ""), "the best floor, not the worst"
    shares = {row.method: row.cells[0].share for row in table.rows if row.cells[0]}
    assert shares["m0"] is None and shares["m2"] is None
    assert shares["m3"] and shares["m3"].value == pytest.approx(0.5, abs=0.02)
    assert shares["m1"] and shares["m1"].value == pytest.approx(-1.0, abs=0.05)
    assert "not shown to be worse" in not_separated.missing
    assert all(row.cells[1] and row.cells[1].share is None for row in table.rows)
    whole = (row for row in records(table) if row.metric == "m_lmd:eat" and not row.speaker and not row.target_emotion)
    lines = {row.method: row for row in whole}
    (document,) = json.loads(to_json([table]))["tables"]
    cells = {row["method"]: row["cells"][0] for row in document["methods"]}
    for method, share in shares.items():
        exported = cells[method]["share"]
        assert (exported and exported["value"]) == (share and share.value) == lines[method].share
        assert share is None or share.interval is None or lines[method].share_low == share.interval.low
