"""Tests that each published number belongs to one entry, and recomputes the facts in docs/reference/published.md."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from cmet_baselines.published import (
    CLASS_ROWS,
    OF_DATA,
    ROWS,
    better,
    copied,
    differences,
    hits,
    improves,
    numbers,
    of_entry,
    published_rows,
    repeated,
)
from cmet_baselines.registry import catalogue
from cmet_eval.commands.baselines import published_text
from tests.conftest import SHARED


def test_every_printed_method_is_one_entry_and_every_published_entry_has_rows() -> None:
    claimed = Counter(name for entry in catalogue().values() for name in entry.published_as)
    assert claimed == Counter({row.method: 1 for row in numbers() if row.setting not in OF_DATA})
    assert all(of_entry(entry.name) for entry in catalogue().values() if entry.kind == "published")
    rows = published_rows()
    assert len(rows) == len(numbers()) - 2 == 231 and {row["entry"] for row in rows} <= set(catalogue())


def test_the_numbers_are_those_of_the_reference() -> None:
    path = SHARED / "reference" / "published.csv"
    if not path.is_file():
        pytest.skip("../shared/reference/published.csv is absent: the copy is not compared with it")
    ours = Path(__file__).parents[2] / "baselines" / "cmet_baselines" / "published.csv"
    # The project's copy has one more column, `copied_from`, which is the last.
    assert [line.rsplit(",", 1)[0] for line in ours.read_text().splitlines()] == path.read_text().splitlines()


def test_the_captions_origins_are_data() -> None:
    found = {
        key: (sorted({r.method for r in rows}), sorted({r.metric for r in rows})) for key, rows in copied().items()
    }
    three = (["EAMM", "IP-LAP", "Wav2Lip"], ["csim", "psnr", "ssim"])
    assert found == {
        ("II", "neutral-base", "[40] EAMM"): (["EAMM", "Wav2Lip"], ["csim", "ea", "lse_c", "m_lmd", "psnr", "ssim"]),
        ("III", "reconstruction", "[38] IP-LAP"): three,
        ("V", "reconstruction", "[38] IP-LAP"): three,
    }
    assert "psnr 15.17 (copied from [38] IP-LAP)" in published_text(of_entry("eamm"))
    assert "copied" not in published_text(of_entry("eat"))


def test_cem_net_published_sees_no_label() -> None:
    assert catalogue()["cem-net-published"].sees == ("driving-audio", "reference-frames")


def test_methods_that_improve_without_a_reference_of_the_emotion() -> None:
    assert improves("EAT") == {"psnr": (21.75, 23.63), "csim": (0.5052, 0.5687), "lse_c": (6.32, 6.51)}
    assert improves("EAMM") == {"ssim": (0.66, 0.67), "lse_c": (5.03, 5.2)}
    assert improves("ETK") == {"ssim": (0.48, 0.55)}
    value = {(r.table, r.dataset, r.setting, r.method, r.metric): r.value for r in numbers()}
    drop = value["II", "MEAD", "cross-emotion", "ETK", "psnr"] - value["II", "MEAD", "neutral-base", "ETK", "psnr"]
    assert round(drop, 2) == -16.97 and round(255 / 10 ** (10.71 / 20)) == 74


def test_a_plug_in_that_is_faster_than_its_generator() -> None:
    time = {r.method: r.value for r in numbers() if (r.dataset, r.metric) == ("MEAD", "aitv_s")}
    ratios = [round(1 - time[a] / time[b], 2) for a, b in (("PD-FGC + C-MET", "PD-FGC"), ("C-MET", "EDTalk"))]
    assert ratios == [0.05, 0.07]


def test_cem_nets_tables_iii_and_v_differ_by_one_in_two_numbers() -> None:
    found = [(row.method, row.metric, step) for row, step in differences("III", "V")]
    assert found == [("SadTalker", "lse_c", -1.0), ("CEM-Net", "lse_c", -1.0)]


def test_repeated_numbers() -> None:
    found = [(a.method, a.dataset, b.method, b.dataset, a.metric, a.value) for a, b in repeated(("psnr", "csim"))]
    assert found == [
        ("Wav2Lip", "MEAD", "EAMM", "MEAD", "psnr", 29.03),
        ("EAMM", "MEAD", "EAMM", "LRS2", "csim", 0.2318),
    ]


def test_ip_lap_is_better_than_cem_net_in_its_own_table() -> None:
    assert better("IP-LAP", "CEM-Net", "neutral-base") == ["psnr", "ssim", "csim", "lse_c"]
    assert better("IP-LAP", "CEM-Net", "cross-emotion") == []
    assert better("IP-LAP", "CEM-Net", "reconstruction", "LRS2", "III") == ["psnr"]


def test_some_methods_are_better_where_the_task_is_harder() -> None:
    psnr = {(row.setting, row.method): row.value for row in numbers() if (row.table, row.metric) == ("II", "psnr")}
    rises = {name: round(psnr["cross-emotion", name] - v, 2) for (s, name), v in psnr.items() if s == "neutral-base"}
    assert {name: rise for name, rise in rises.items() if rise > 0} == {
        **{"SadTalker": 0.15, "PDFGC": 4.06, "EAT": 1.88, "CEM-Net": 0.29}
    }


def test_cmets_accuracies_count_rows() -> None:
    counts = {
        (row.method, row.dataset): hits(row.value, ROWS[row.dataset]) for row in numbers() if row.metric == "acc_emo"
    }
    without = {key for key, k in counts.items() if k is None}
    assert without == {("PD-FGC", "MEAD"), ("PD-FGC + C-MET", "MEAD")}
    assert [counts[name, "MEAD"] for name in ("C-MET", "EAT", "EDTalk", "EAMM", "FLOAT")] == [639, 475, 480, 215, 151]
    assert [counts[name, "CREMA-D"] for name in ("C-MET", "EAT", "EDTalk", "EAMM", "FLOAT")] == [
        672,
        618,
        459,
        296,
        450,
    ]
    assert [counts[name, "MEAD"] for name in ("C-MET recon", "C-MET recon+cnt")] == [565, 611]
    # Only three smaller lists fit both numbers: the two runs may have lost different rows.
    assert [n for n in range(900, 1144) if hits(33.36, n) and hits(36.82, n)] == [1070, 1100, 1127]


def test_cmets_accuracies_by_class_add_up_to_its_accuracy() -> None:
    for dataset, total in (("MEAD", 639), ("CREMA-D", 672)):
        printed = {r.metric[8:]: r.value for r in numbers() if r.dataset == dataset and r.metric.startswith("acc_emo/")}
        counts = {emotion: hits(value, CLASS_ROWS[dataset][emotion]) for emotion, value in printed.items()}
        assert sum(filter(None, counts.values())) == total and None not in counts.values()
        assert sum(CLASS_ROWS[dataset].values()) == ROWS[dataset]


def test_hits_at_the_edges() -> None:
    assert hits(100.0, 7) == 7 and hits(0.0, 7) == 0 and hits(14.29, 7) == 1 and hits(14.28, 7) is None
