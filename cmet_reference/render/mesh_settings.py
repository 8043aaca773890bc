"""The settings of the mesh renderer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MeshSettings:
    """How the mesh is extended around the face, and how the pictures that fill an opening (mouth, eye) are chosen.

    The cost of a picture is the absolute logarithm of the ratio between its opening and the wanted opening, plus the
    costs below. Sizes of openings are in units of the distance between the outer eye corners.
    """

    rings: tuple[float, float] = (
        1.3,
        1.9,
    )  # sizes of the two rings relative to the face's outline, from the nose; outside of the outer ring nothing moves
    follow: float = 0.4  # the inner ring adds this share of the outline's own motion, e.g. of an opening jaw
    slack: float = 0.01  # added to all openings; openings smaller than this are nearly equal to closed ones
    own: float = 0.25  # subtracted from the cost of the base picture itself, because its inside moves correctly
    change: float = 0.5  # added to the cost if the picture is another one than in the frame before
    # Cost of the drawn mouth. It is therefore chosen if all other mouths are less than a third as open as wanted.
    drawn: float = 1.1
    width: float = 2.0  # cost per eye distance by which a mouth is wider or narrower than wanted
    donors: int = 6  # number of base frames that can be copied from, chosen by quantiles of the opening
