"""Imports the checkpoint that the authors of C-MET released, for generation with `cmet-eval run --method cmet`.

The file is written by save_checkpoint in train.py of ChanHyeok-Choi/C-MET: a dict with `state_dict` (the connector),
`optimizer`, `global_step` and `global_epoch`. Only its tensors and plain values are read, and no code in it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cmet_pipelines.splits import base_actor, presets
from cmet_reference.cmet import train
from cmet_reference.cmet.connector import Connector, ConnectorSettings, from_released
from cmet_reference.cmet.train import CMetNet
from cmet_reference.training import checkpoints
from talking_face.files import sha256_of
from talking_face.lines import one_line
from talking_face.pretrained.model_files import ModelFiles, folder_name
from talking_face.reasons import UserError

_EMOTION2VEC_SIZE = 1024


@dataclass(frozen=True)
class Released:
    """The content of a released checkpoint, compared with our connector."""

    path: Path
    tensors: Mapping[str, Tensor]  # of the connector, by our names
    step: int | None
    epoch: int | None
    missing: tuple[str, ...]  # tensors of our connector that the file lacks
    surplus: tuple[str, ...]  # tensors of the file that our connector lacks, by the file's names
    misshapen: tuple[str, ...]  # "NAME: (2, 3) in the file, (2, 4) in the connector"

    @property
    def fits(self) -> bool:
        """Whether the connector can be filled from the file."""
        return not (self.missing or self.surplus or self.misshapen)

    def report(self) -> list[str]:
        """What was found, one line each."""
        count = sum(tensor.numel() for tensor in self.tensors.values())
        lines = [f"{len(self.tensors)} tensors of the connector, {count} numbers, step {self.step}, epoch {self.epoch}"]
        for what, names in (("missing", self.missing), ("surplus", self.surplus), ("other shape", self.misshapen)):
            lines.append(
                f"{what}: {', '.join(names[:5]) or 'none'}{f' and {len(names) - 5} more' if names[5:] else ''}"
            )
        return lines


def read(path: Path, settings: ConnectorSettings | None = None) -> Released:
    """Reads a released checkpoint.

    Args:
        path: the .pth file.
        settings: the sizes of the connector; None: the released sizes.

    Raises:
        UserError: the file is absent, holds anything but tensors and plain values, or has no `state_dict`.
    """
    if not path.is_file():
        raise UserError(f"no file {path}; the checkpoint is checkpoints/ in coldhyuk/C-MET on the model hub")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for damaged files, and for pickles with code
        raise UserError(f"{path} cannot be read as tensors: {one_line(error, 160)}") from None
    state = found.get("state_dict") if isinstance(found, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} has no state_dict of tensors, so it is not a checkpoint of C-MET's train.py")
    plain = {str(name).removeprefix("module."): value for name, value in state.items()}
    ours: dict[str, Tensor] = {}
    surplus = []
    for name, value in plain.items():
        try:
            ours |= from_released({name: value})
        except KeyError:
            surplus.append(name)
    connector = Connector(settings or ConnectorSettings())
    wanted = {name: tuple(value.shape) for name, value in connector.state_dict().items()}
    shapes = {name: tuple(value.shape) for name, value in ours.items()}
    counts = (found.get(name) for name in ("global_step", "global_epoch"))
    step, epoch = (value if isinstance(value, int) else None for value in counts)
    return Released(
        path,
        ours,
        step,
        epoch,
        tuple(sorted(wanted.keys() - shapes.keys())),
        (*sorted(surplus), *sorted(shapes.keys() - wanted.keys())),
        tuple(
            f"{name}: {shapes[name]} in the file, {wanted[name]} in the connector"
            for name in sorted(wanted.keys() & shapes.keys())
            if shapes[name] != wanted[name]
        ),
    )


def save(found: Released, out: Path, codec: str, speech: str, files: ModelFiles) -> Path:
    """Writes OUT/cmet.safetensors with the released connector and the released inference.

    The estimate of the source's emotion and the neutral utterances of the training split are not in the authors' file.
    The released inference needs neither. The authors trained on 43 speakers of MEAD, so no clip of these speakers is
    scored with the checkpoint.

    Args:
        found: the content of the file.
        out: the folder.
        codec: `edtalk:CHECKOUT`.
        speech: `emotion2vec:FOLDER` or `stored:FOLDER`.
        files: the folders in which CHECKOUT is searched for.

    Raises:
        UserError: the file does not fit the connector; the codec's files are absent; OUT has a checkpoint of C-MET.
    """
    if not found.fits:
        raise UserError(f"{found.path} does not fit the connector of C-MET: {'; '.join(found.report()[1:])}")
    path = out / f"{train.KIND}.safetensors"
    if path.is_file():
        raise UserError(f"{path} exists; remove it, or name another folder with --out")
    from cmet_reference.cmet.speech import make_encoder

    encoder = make_encoder(speech, files=files)
    if encoder.pool_rule != "mean" or encoder.size != _EMOTION2VEC_SIZE:
        raise UserError(f"speech = {speech!r} has {encoder.size} numbers; the released connector was trained on 1024")
    kind, revision = codec.partition(":")[0], train.codec_revision(codec, files)
    net = CMetNet(ConnectorSettings(), kind, encoded=_EMOTION2VEC_SIZE, neutral=0)
    net.connector.load_state_dict(dict(found.tensors))
    record = {
        "connector": vars(ConnectorSettings()),
        "codec": kind,
        "codec_revision": revision,
        "codec_setting": folder_name(codec),
        "speech": encoder.name,
        "speech_setting": folder_name(speech),
        "learnt_noise": False,
        "strength": 1.0,
        "inference": "released",
        "knows_source": False,
        "heard": "mean",
        "encoded": _EMOTION2VEC_SIZE,
        "neutral": 0,
        "imported": {"sha256": sha256_of(found.path), "step": found.step, "epoch": found.epoch},
    }
    speakers = sorted({base_actor(name) for name in presets()["cmet"]["train"]})
    trained_on = {"clips": [f"mead/{name}/*" for name in speakers], "speakers": speakers, "built_on": {}}
    checkpoints.save(path, net.state_dict(), record, {"trained_on": trained_on})
    return path
