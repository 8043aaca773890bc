"""The embedded corpus: deterministic, parametric talking faces with sound, written in a dataset's own folders."""
