"""The settings of the mesh renderer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MeshSettings:
    """Lengths in units of the face's radius, openings in units of the eyes' distance, costs in log ratios."""

    rings: tuple[float, float] = (
        1.3,
        1.9,
    )  # scales of the face's outline about the nose; nothing moves outside of the outer ring
    follow: float = 0.4  # share of the outline's own motion (a jaw that opens) that the inner ring follows
    slack: float = 0.01  # an opening of this size counts as closed
    own: float = 0.25  # advantage of the picture itself over others: its inside moves as it should
    change: float = 0.5  # cost of another picture than in the frame before
    drawn: float = 1.1  # cost of the drawn mouth: chosen where every other mouth is less than a third as open
    width: float = 2.0  # cost of a mouth that is wider or narrower by one eyes' distance
    donors: int = 6  # pictures of the base video that may be copied from, by quantiles of the opening
