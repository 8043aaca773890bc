"""Compares the trivial methods' scores on a small part of the embedded corpus with golden_rows.csv.

A method, a metric, the mesh renderer, preprocessing or the corpus that changes what comes out fails here, and the
failure says which number moved. Where that was meant, renew the file and read its difference before committing it:

    python -m tests.baselines.test_golden_rows
"""

from __future__ import annotations

from tests import conftest  # noqa: F401  pins the instruction set, as commands do, before numpy is loaded

# isort: split
import csv
import itertools
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from cmet_baselines.trivial import StaticReference
from cmet_eval.protocol.draw import Draw
from cmet_eval.runs import evaluate
from cmet_eval.runs.metrics import Scoring
from cmet_eval.runs.submissions import RULES
from cmet_leaderboards.results import read_results
from cmet_metrics.registry import get_metric
from cmet_pipelines.preprocess import preprocess
from embedded_corpus.plan import CorpusPlan
from embedded_corpus.writing import write_corpus
from talking_face.execution.options import RunOptions

FILE = Path(__file__).with_name("golden_rows.csv")
RENEW = "python -m tests.baselines.test_golden_rows"
METHODS = ("ground-truth", "ground-truth-lips", "source-video", "static-reference", "shuffled-audio", "retrieval")
# Metrics without a trained network, and the tolerance for other processors: a tenth of the noise band, which is the
# effect of re-encoding or of moving the crop by a pixel (docs/experiments/calibration). One machine repeats the bits.
# With another instruction set than AVX2, the mesh renderer of ground-truth-lips moves lip_energy by up to 0.01.
TOLERANCE = {
    "psnr:frame-mean": 0.1,  # dB
    "ssim:wang2004": 0.002,
    "m_lmd:eat-mp": 0.025,  # px of 128
    "lip_energy:correlation": 0.001,
}
SETTING, PAIRS = "cross-emotion", 4
# One training and two test speakers, two takes of each of two emotions. 36 frames: lip energy needs 35.
SPEAKERS = {"M901": ("001", "004"), "M903": ("001", "004"), "W903": ("005", "008")}
EMOTIONS, SECONDS = ("neutral/level_1", "happy/level_3"), 1.44
HEAD = ("pair", "method", "revision", *TOLERANCE)

Rows = dict[
    tuple[str, ...], dict[str, str]
]  # (pair, method) -> its revision and metrics: a number, or the reason for none


def make_shards(folder: Path) -> Path:
    """The small part of the corpus, as shards."""
    keys = [f"{who}/front/{what}/{take}" for who in SPEAKERS for what in EMOTIONS for take in SPEAKERS[who]]
    write_corpus(CorpusPlan("mead", seconds=SECONDS, only=tuple(keys)), folder / "corpus", workers=0, quiet=True)
    preprocess("mead", folder / "corpus", folder / "shards", run=RunOptions(workers=0, quiet=True))
    return folder / "shards"


def make_rows(
    shards: Path, out: Path, methods: Sequence[str] = METHODS, metrics: Sequence[str] = tuple(TOLERANCE)
) -> Rows:
    """Generate and score."""
    evaluate.run(
        methods,
        [SETTING],
        data=shards,
        out=out,
        draw=Draw(seeds=1),
        scoring=Scoring(metrics),
        options=RunOptions(workers=0, quiet=True),
    )
    rows: Rows = {}
    for row in read_results(out / "results").frame().itertuples():
        line = rows.setdefault((row.pair_id, row.method), {"revision": row.revision})
        line[row.metric] = f"{row.value:.5f}" if math.isfinite(row.value) else str(row.reason)
    return rows


def write_rows(rows: Rows, path: Path) -> None:
    """As CSV, below comments with the command and the signatures."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(f"# Golden rows of the trivial methods. To renew them on purpose: {RENEW}\n")
        file.writelines(f"# {RULES.signature(get_metric(name))}\n" for name in TOLERANCE)
        writer = csv.DictWriter(file, HEAD, lineterminator="\n")
        writer.writeheader()
        writer.writerows(dict(zip(HEAD, key, strict=False)) | line for key, line in sorted(rows.items()))


def read_rows(path: Path = FILE) -> Rows:
    """The golden rows."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return {
        tuple(row[name] for name in HEAD[:2]): {name: row[name] for name in HEAD[2:]} for row in csv.DictReader(lines)
    }


def differences(golden: Rows, now: Rows, metrics: Sequence[str] = tuple(TOLERANCE)) -> list[str]:
    """The differences above TOLERANCE: one line for each method and metric, and for each row that one side lacks."""
    found = [
        f"{' '.join(key)}: only in {'the golden rows' if key in golden else 'the new rows'}"
        for key in golden.keys() ^ now.keys()
    ]
    for method, metric in itertools.product(METHODS, metrics):
        same = [key for key in sorted(golden.keys() & now.keys()) if key[1] == method]
        off = [key for key in same if not _near(golden[key][metric], now[key][metric], TOLERANCE[metric])]
        if off:
            before, after = golden[off[0]], now[off[0]]
            bumped = "" if before["revision"] == after["revision"] else ", under another revision"
            found.append(
                f"{method} {metric} changed in {len(off)} of {len(same)} pairs{bumped}: "
                f"{before[metric]} is now {after[metric]} in {off[0][0]}"
            )
    return sorted(found)


def _near(golden: str, now: str, tolerance: float) -> bool:
    """Whether two numbers agree within the tolerance, or both have the same reason."""
    try:
        return abs(float(golden) - float(now)) <= tolerance
    except ValueError:
        return golden == now


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("golden"))


def test_the_baselines_have_their_golden_scores(shards: Path, tmp_path: Path) -> None:
    signatures = [line[2:] for line in FILE.read_text(encoding="utf-8").splitlines() if line.startswith("# ")][1:]
    assert signatures == [RULES.signature(get_metric(name)) for name in TOLERANCE], f"another metric: {RENEW}"
    changes = differences(read_rows(), make_rows(shards, tmp_path))
    assert not changes, "\n".join(["golden rows changed; if this is intended: " + RENEW, *changes])


def test_a_changed_baseline_is_named(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = StaticReference.generate
    monkeypatch.setattr(StaticReference, "generate", lambda self, case: held(self, case)[:, ::-1])
    now = make_rows(shards, tmp_path, ("source-video", "static-reference"), ["psnr:frame-mean"])
    golden = {key: row for key, row in read_rows().items() if key in now}
    (change,) = differences(golden, now, ["psnr:frame-mean"])
    assert change.startswith(f"static-reference psnr:frame-mean changed in {PAIRS} of {PAIRS} pairs: ")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        write_rows(make_rows(make_shards(Path(place)), Path(place) / "run"), FILE)
    print(FILE)
