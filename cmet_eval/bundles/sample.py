"""Chooses the videos of a bundle: the digest of the pair list decides, so that no submitter can choose them.

The order of the pairs follows from the digest of the pair list and the ids of the pairs alone. The sample is the first
5 % of the pairs in this order. A pair without a video gives its place to the next pair that has one.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from cmet_eval.protocol.pairs import PairList
from talking_face.signature import digest

SHARE = 0.05  # of the pairs of each table; at least one video


def sample_of(pair_list: PairList, with_video: Collection[str]) -> tuple[str, ...]:
    """The ids of the pairs whose videos are in the bundle, sorted.

    Args:
        pair_list: the pairs of a table.
        with_video: ids of the pairs that have a video.
    """
    wanted = max(1, math.ceil(SHARE * len(pair_list.pairs)))
    ids = (pair.pair_id for pair in pair_list.pairs)
    order = sorted(ids, key=lambda pair_id: digest(["bundle", pair_list.digest, pair_id], 64))
    return tuple(sorted([pair_id for pair_id in order if pair_id in with_video][:wanted]))
