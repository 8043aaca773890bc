"""States what the training of C-MET needs: labels, the codec's checkout and weights, the speech features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from cmet_reference.cmet.train import KIND, read_settings
from cmet_reference.training import checkpoints
from cmet_reference.training.preflight import Lack, Rows
from talking_face.emotions import EMOTIONS
from talking_face.packages import how_to_install, is_installed
from talking_face.pretrained.model_files import ModelFiles

# For each codec: groups of files of the checkout. One file of each group must exist.
_CHECKOUTS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "edtalk": (
        ("src/EDTalk/networks/generator.py", "networks/generator.py"),
        ("pretrained_weights/EDTalk.pt", "ckpts/EDTalk.pt"),
        ("pretrained_weights/Audio2Lip.pt", "ckpts/Audio2Lip.pt"),
    ),
    "pd-fgc": (("lib/model_builder.py",), ("configs/inference.yaml",)),
}


def lacks(config: Mapping[str, object], folders: Mapping[str, Path], files: ModelFiles, paper: bool) -> Iterator[Lack]:
    """Everything that is absent for the training in these settings.

    Args:
        paper: also require a test split, as the paper had.
    """
    settings, rows = read_settings(config), Rows(folders.values())
    yield from rows.lacks(KIND, paper)
    if not rows.train.empty and not rows.train["emotion"].isin(EMOTIONS).any():
        yield Lack(KIND, f"{rows.places}: no clip of the train split has an emotion label")
    yield from _codec_lacks(settings.codec, files)
    yield from _speech_lacks(settings.speech, rows, files)


def _codec_lacks(setting: str, files: ModelFiles) -> Iterator[Lack]:
    kind, _, where = setting.partition(":")
    if kind not in _CHECKOUTS or not where:
        return  # blendshape needs no file; `codec_named` refuses other values
    folder = files.folder(where)
    if not folder.is_dir():
        yield Lack(KIND, f"codec = {setting!r} names the folder {where} of the authors' code, and it does not exist")
        return
    for group in _CHECKOUTS[kind]:
        if not any((folder / name).is_file() for name in group):
            yield Lack(KIND, f"{folder / group[0]} is absent, which codec = {setting!r} needs")


def _speech_lacks(setting: str, rows: Rows, files: ModelFiles) -> Iterator[Lack]:
    kind, _, where = setting.partition(":")
    folder = files.folder(where) if where else None
    if kind == "emotion2vec" and folder is not None:
        if not (folder / "model.pt").is_file():
            yield Lack(KIND, f"{folder / 'model.pt'} is absent, which speech = {setting!r} needs")
        if not is_installed("funasr"):
            yield Lack(KIND, f"the package funasr is not installed, which runs emotion2vec; {how_to_install('funasr')}")
    elif kind == "stored" and folder is not None and not folder.is_dir():
        yield Lack(KIND, f"speech = {setting!r} names the folder {where}, and it does not exist")
    elif kind == "aee" and not any(
        (place / checkpoints.FOLDER / "aee.safetensors").is_file() for place in rows.folders
    ):
        yield Lack(KIND, f"aee.safetensors is absent, which speech = 'aee' needs; run `{checkpoints.command('aee')}`")
