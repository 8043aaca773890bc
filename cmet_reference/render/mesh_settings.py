"""The settings of the mesh renderer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MeshSettings:
    """The settings. The cost of a picture is the absolute log ratio of its opening to the wanted opening, plus other
    costs.

    Sizes of openings (mouth, eyes) are in units of the distance between the outer eye corners.
    """

    rings: tuple[float, float] = (
        1.3,
        1.9,
    )  # sizes of the two rings relative to the face's outline, from the nose; outside of the outer ring nothing moves
    follow: float = 0.4  # share of the outline's own motion (of an opening jaw) that is added to the inner ring's motion
    slack: float = 0.01  # added to all openings; openings smaller than this are nearly equal to closed ones
    own: float = 0.25  # subtracted from the cost of the base picture itself, because its inside moves correctly
    change: float = 0.5  # added to the cost if the picture is another one than in the frame before
    # Cost of the drawn mouth. It is therefore chosen if all other mouths are less than a third as open as wanted.
    drawn: float = 1.1
    width: float = 2.0  # cost per eye distance by which a mouth is wider or narrower than wanted
    donors: int = 6  # number of base frames that can be copied from, chosen by quantiles of the opening
