"""How well landmark distances on MediaPipe's points follow those on dlib's. From the root, with PYTHONPATH=.:
`python tests/benchmarks/lmd_agreement.py FOLDER_OF_CLIPS`.

Each clip is scored against six altered versions of itself and against the next person; printed are Pearson's and
Spearman's correlations of the clip values, over all pairs and over the clip's own alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from cmet_metrics.base import Sample
from cmet_metrics.registry import get_metric
from talking_face.media.reading import read_frames
from talking_face.threads import limit_threads

FRAMES = 12
AGREEMENTS = (
    *(("m_lmd:eat-mp", "m_lmd:eat"), ("m_lmd:native-mp", "m_lmd:eat"), ("m_lmd:native-mp", "m_lmd:atvgnet")),
    *(("f_lmd:eat-mp", "f_lmd:eat"), ("f_lmd:native-mp", "f_lmd:eat"), ("m_lmd:eat", "m_lmd:atvgnet")),
)


def altered(clip: np.ndarray, start: int) -> dict[str, np.ndarray]:
    """Degraded and displaced versions of clip[start : start + FRAMES]."""
    part = clip[start : start + FRAMES]
    height, width = part.shape[1:3]
    move = np.array([[1.0, 0, 2], [0, 1, 1]])
    return {
        "later": clip[start + 20 : start + 20 + FRAMES],
        "5 frames late": clip[start + 5 : start + 5 + FRAMES],
        "held": np.repeat(part[:1], FRAMES, axis=0),
        "blurred": np.stack([cv2.GaussianBlur(f, (0, 0), 2) for f in part]),
        "jpeg 10": np.stack([np.asarray(cv2.imdecode(cv2.imencode(".jpg", f, [1, 10])[1], 1)) for f in part]),
        "moved 2 px": np.stack([cv2.warpAffine(f, move, (width, height), borderMode=1) for f in part]),
    }


def correlations(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Pearson's and Spearman's."""
    ranks_a, ranks_b = (np.argsort(np.argsort(x)) for x in (a, b))
    return float(np.corrcoef(a, b)[0, 1]), float(np.corrcoef(ranks_a, ranks_b)[0, 1])


def main() -> None:
    limit_threads(1)
    paths = sorted(Path(sys.argv[1]).glob("*.mpg"))
    clips = [read_frames(path) for path in paths]
    metrics = {key: get_metric(key) for pair in AGREEMENTS for key in pair}
    rows: list[dict[str, float]] = []
    own: list[bool] = []
    for k, clip in enumerate(clips):
        target = Sample(clip[20 : 20 + FRAMES], name=paths[k].stem)
        versions = altered(clip, 20) | {"next person": clips[(k + 1) % len(clips)][20 : 20 + FRAMES]}
        for name, frames in versions.items():
            pred = Sample(np.ascontiguousarray(frames), name=name)
            scores = {key: metric.score(pred, target) for key, metric in metrics.items()}
            if all(score.value is not None for score in scores.values()):
                rows.append({key: float(score.value or 0.0) for key, score in scores.items()})
                own.append(name != "next person")
            else:
                print(target.name, name, [score.detail for score in scores.values() if score.value is None])
    mine = np.array(own)
    print(
        f"{len(rows)} pairs, {mine.sum()} of a clip with itself\n{'':34} all: Pearson Spearman   own: Pearson Spearman"
    )
    for a, b in AGREEMENTS:
        x, y = (np.array([row[key] for row in rows]) for key in (a, b))
        (p, s), (q, t) = correlations(x, y), correlations(x[mine], y[mine])
        print(f"{a:16} {b:16} {p:13.2f} {s:8.2f} {q:14.2f} {t:8.2f}")


if __name__ == "__main__":
    main()
