"""Fits the table talking_face/faces/speaking.csv, which predicts the motion of the mouth from sound.

The table is fitted on the embedded corpus only, so that every real clip can be used to test the table:

cmet-eval synth clips CORPUS && cmet-eval preprocess clips CORPUS SHARDS
python -m embedded_corpus.fit_speaking SHARDS
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from cmet_pipelines.shards import ShardSet
from talking_face.faces import speaking

# Ridge penalty. It is added to the sum of squares of each of the 50 standardised inputs, over about 10,000 frames.
_RIDGE = 100.0


def fit(shards: ShardSet) -> tuple[np.ndarray, np.ndarray]:
    """Predicts mouth motion from sound by ridge regression.

    Returns the (50, 5) matrix and the (5,) squared correlations between predicted and true motion.
    """
    inputs, outputs = [], []
    for clip in shards.clips["clip_id"]:
        landmarks, valid = shards.landmarks(clip), shards.valid(clip)
        inputs.append(speaking.with_context(speaking.sound_bands(shards.audio(clip), len(valid))))
        outputs.append(speaking.mouth_motion(landmarks, valid))
    x, y = np.concatenate(inputs), np.concatenate(outputs)
    table = np.linalg.solve(x.T @ x + _RIDGE * np.eye(x.shape[1]), x.T @ y)
    reached = [np.corrcoef(x @ table[:, k], y[:, k])[0, 1] ** 2 for k in range(y.shape[1])]
    return table, np.array(reached)


def write(path: Path, table: np.ndarray, weights: np.ndarray) -> None:
    """Writes one row of weights, then one row per input: five frames times ten bands."""
    names = ",".join(name for name, _, _ in speaking.DISTANCES)
    lines = [
        "# From the log power of the sound in ten mel bands, over five frames, to the motion of five mouth distances.",
        "# First row: the weight of each distance. Fitted by `python -m embedded_corpus.fit_speaking`.",
        f"# {names}",
        *(",".join(f"{value:.4f}" for value in row) for row in (weights, *table)),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(folder: str) -> None:
    """Fits on a shard set at 25 frames/s and writes the table."""
    table, weights = fit(ShardSet(folder))
    path = Path(speaking.__file__).with_suffix(".csv")
    write(path, table, weights)
    print(f"{path}: correlation {', '.join(f'{np.sqrt(w):.2f}' for w in weights)}")


if __name__ == "__main__":
    main(sys.argv[1])
