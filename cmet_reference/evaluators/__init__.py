"""Evaluators trained on a shard set's training split: a small SyncNet and an emotion classifier, with their cards."""
