"""The 478-to-68 correspondence as a picture to check. From the root, with PYTHONPATH=.:
`python tests/benchmarks/points68_picture.py VIDEO OUT.png`.

One frame, five times enlarged: dlib's 68 points as rings, MediaPipe's of the same meaning as numbered dots, a line
between the two of a pair. Prints the mean distance of each part in percent of the distance between the eyes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from cmet_metrics.base import DEFAULT_FILES, Sample
from cmet_metrics.landmarks import eye_distance, mediapipe_68
from talking_face.faces.points68 import BROWS, EYES, JAW, MOUTH, NOSE
from talking_face.media.reading import read_frames
from talking_face.pretrained.dlib_models import detect_faces_hog, landmarks68
from tests.models import models

PARTS = {"jaw": JAW, "brows": BROWS, "nose": NOSE, "eyes": EYES, "mouth": MOUTH}
COLOURS = ((255, 200, 0), (0, 200, 255), (0, 255, 0), (255, 0, 255), (0, 0, 255))  # BGR
ENLARGED = 5


def draw(frame: np.ndarray, theirs: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """The face of an (H, W, 3) uint8 RGB frame with both (68, 2) sets on it, BGR."""
    low, high = theirs.min(axis=0) - 15, theirs.max(axis=0) + 15
    x0, y0, x1, y1 = (int(v) for v in (*np.maximum(low, 0), *high))
    face = cv2.cvtColor(frame[y0:y1, x0:x1], cv2.COLOR_RGB2BGR)
    image = cv2.resize(face, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_CUBIC)
    for part, colour in zip(PARTS.values(), COLOURS, strict=True):
        for k in range(*part.indices(68)):
            a, b = (tuple(int(v) for v in (p[k] - (x0, y0) + 0.5) * ENLARGED) for p in (theirs, ours))
            cv2.line(image, a, b, (255, 255, 255), 1, cv2.LINE_AA)
            cv2.circle(image, a, 5, colour, 1, cv2.LINE_AA)
            cv2.circle(image, b, 2, colour, -1, cv2.LINE_AA)
            cv2.putText(image, str(k), (b[0] + 4, b[1] - 3), cv2.FONT_HERSHEY_SIMPLEX, 0.36, colour, 1, cv2.LINE_AA)
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--frame", type=int, default=20)
    options = parser.parse_args()
    frame = read_frames(options.video)[options.frame]
    boxes = detect_faces_hog(frame, 1)
    ours = mediapipe_68(Sample(frame[None]), DEFAULT_FILES)[0]
    if not boxes or not np.isfinite(ours).all():
        raise SystemExit(f"no face in frame {options.frame} of {options.video}")
    theirs = landmarks68(frame, boxes[0], files=models()).astype(np.float64)
    apart = 100 * np.linalg.norm(theirs - ours, axis=1) / eye_distance(theirs)
    print(", ".join(f"{name} {apart[part].mean():.1f}%" for name, part in PARTS.items()))
    cv2.imwrite(str(options.out), draw(frame, theirs, ours))


if __name__ == "__main__":
    main()
