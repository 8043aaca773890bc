"""Loads its weights by torch.hub, as Wav2Lip's detector does. Not their code."""

import torch

from .detection.sfd.net_s3fd import s3fd


def box(frame):
    detector = s3fd()
    detector.load_state_dict(torch.hub.load_state_dict_from_url("https://nowhere.invalid/s3fd-619a316812.pth"))
    height, width = frame.shape[:2]
    return width // 4, height // 2, 3 * width // 4, height
