"""The settings of the mesh renderer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MeshSettings:
    """How the mesh is extended around the face, and how the pictures that fill an opening (mouth, eye) are chosen.

    The picture with the least cost is chosen. The cost of a picture is the absolute logarithm of the ratio between its
    opening and the wanted opening, plus some of the costs below. Sizes of openings are in units of the distance between
    the outer eye corners.
    """

    rings: tuple[float, float] = (
        1.3,
        1.9,
    )  # sizes of the two rings relative to the face's outline; outside of the outer ring nothing moves
    follow: float = 0.4  # the inner ring adds this share of the outline's own motion, e.g. of an opening jaw
    slack: float = 0.01  # added to the size of all openings; smaller openings are treated almost as closed
    own: float = 0.25  # subtracted from the cost of the base picture, because its mouth and eyes move correctly
    change: float = 0.5  # added to the cost if the picture differs from the picture chosen for the frame before
    # Cost of the drawn mouth. With this cost, the drawn mouth is chosen if all other mouths are less than a third as
    # open as wanted.
    drawn: float = 1.1
    width: float = 2.0  # cost per eye distance by which a mouth is wider or narrower than wanted
    donors: int = 6  # number of base frames from which an opening can be copied; they are quantiles of its height
