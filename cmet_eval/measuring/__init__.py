"""Scores video files against video files, without shards: `cmet-eval measure` and `cmet_eval.measure`."""
