"""The embedded corpus: deterministic, drawn talking faces with sound, written in the folders of a dataset."""
