"""Defines the pose of a head in one frame: rotation, shift, scale and gaze."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Pose:
    """Rotation (radians), shift (units of 100 mm) and scale of the head, and the gaze as a shift of the irises (units).

    Yaw is positive to the right, pitch is positive downwards, and roll is positive clockwise.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    dx: float = 0.0
    dy: float = 0.0
    scale: float = 1.0
    gaze_x: float = 0.0
    gaze_y: float = 0.0

    def matrix(self) -> np.ndarray:
        """(3, 3) float32 rotation matrix: first yaw, then pitch, then roll."""
        cy, sy, cp, sp, cr, sr = (f(a) for a in (self.yaw, self.pitch, self.roll) for f in (np.cos, np.sin))
        yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        pitch = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
        roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        return (roll @ pitch @ yaw).astype(np.float32)
