"""Takes the place of librosa, whose `filters.mel` takes keywords only."""

from librosa import filters as filters
