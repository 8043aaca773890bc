"""C-MET's connector: shapes and counts, names of the released code; losses by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cmet_reference.cmet import losses
from cmet_reference.cmet.connector import Connector, Tokens, from_released
from tests.cmet_reference.cmet_parts import SMALL

# -- connector ---------------------------------------------------------------------------------------------------------


def test_the_paper_connector_has_27_691_096_parameters_layer_by_layer() -> None:
    net = Connector()
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in net.named_children()}
    d, f = 1024, 1024
    layer = 3 * d * d + 3 * d + d * d + d + d * f + f + f * d + d + 4 * d
    blocks = [(1, 4, 3), (4, 8, 3), (8, 8, 3), (8, 8, 3), (8, 16, 3), (16, 16, 3), (16, 16, 3), (16, 32, 2)]
    blocks += [(32, 64, 1), (64, 128, 1), (128, 256, 1), (256, 512, 1), (512, 1024, 1)]
    tokenizer = sum(a * b * k + 3 * b for a, b, k in blocks)  # convolution's bias, batch norm's two
    assert len(blocks) == len(net.input_tokenizer.blocks) == 13
    assert count == {
        "modality": 4 * d,
        "dropout": 0,
        "encoder": 4 * layer,
        "input_tokenizer": tokenizer,
        "reference_tokenizer": tokenizer,
        "speech_tokenizer": d * d + d + 2 * d,
        "head": d * 10 + 10 + 10 * 10 + 10,
        "visual_norm": 2 * d,
    }
    assert sum(count.values()) == 27_691_096


@pytest.mark.parametrize("code", [10, 30])
def test_the_connector_reads_codes_of_any_size_and_gives_a_direction_for_each_frame(code: int) -> None:
    net = Connector(replace(SMALL, code=code)).eval()
    out, tokens = net(torch.zeros(3, 5, code), torch.randn(3, 1, 6), torch.randn(3, 5, code))
    assert out.shape == (3, 5, code)
    assert [t.shape for t in tokens] == [(3, 5, 16), (3, 1, 16), (3, 5, 16)]


def test_a_code_of_ten_is_one_position_after_the_strided_convolutions() -> None:
    net = Connector(SMALL).eval()
    x = torch.randn(2, 1, 10)
    lengths = []
    for block in net.input_tokenizer.blocks:
        x = block(x)
        lengths.append(x.shape[-1])
    assert lengths == [10, 5, 5, 5, 3, 3, 3, 1, 1, 1, 1, 1, 1]


def test_reference_and_input_positions_both_begin_at_zero_and_the_speech_token_has_none() -> None:
    net = Connector(SMALL).eval()
    seen = []
    net.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    _, tokens = net(torch.randn(1, 5, 10), torch.randn(1, 1, 6), torch.randn(1, 5, 10))
    added = seen[0] - torch.cat(tokens, dim=1)
    angle = torch.arange(5).float()[:, None] * torch.tensor([10000 ** (-2 * (i // 2) / 16) for i in range(16)])
    table = torch.where(torch.arange(16) % 2 == 0, angle.sin(), angle.cos())
    kind = net.modality.weight
    assert seen[0].shape == (1, 11, 16)
    torch.testing.assert_close(added[0], torch.cat([table + kind[1], kind[2][None], table + kind[3]]))


def test_released_names_are_taken_over_and_an_unknown_one_is_refused() -> None:
    released = {
        "fusion_transformer_encoder.position_r.pe": torch.zeros(1),
        "fusion_transformer_encoder.modality.weight": torch.zeros(1),
        "exp_encoder.0.conv_block.0.weight": torch.zeros(1),
        "ref_encoder.12.conv_block.1.running_mean": torch.zeros(1),
        "speaker_encoder.proj.bias": torch.zeros(1),
        "projector.projector.2.weight": torch.zeros(1),
        "Norm.weight": torch.zeros(1),
    }
    names = set(Connector(SMALL).state_dict())
    assert set(from_released(released)) == {
        "modality.weight",
        "input_tokenizer.blocks.0.conv.weight",
        "reference_tokenizer.blocks.12.norm.running_mean",
        "speech_tokenizer.linear.bias",
        "head.2.weight",
        "visual_norm.weight",
    }
    assert set(from_released(released)) <= names
    with pytest.raises(KeyError, match="other"):
        from_released({"other.weight": torch.zeros(1)})


# -- losses ------------------------------------------------------------------------------------------------------------


def test_reconstruction_losses_by_hand() -> None:
    x, y = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 0.0], [0.0, 0.0]])

    def weight(e: float) -> float:
        return 2 / (1 + np.exp(-0.2 * e)) - 1

    assert losses.focal_mse(x, y).item() == pytest.approx((1 * weight(1) + 4 * weight(2)) / 4, rel=1e-6)
    small = losses.focal_mse(torch.tensor([0.01]), torch.zeros(1)).item()
    assert small == pytest.approx(0.1 * 0.01**3, rel=1e-3)  # cubic where the error is small
    assert losses.weighted_mse(x, y, torch.tensor([2.0, 0.5])).item() == pytest.approx((0.5 * 2 + 2 * 0.5) / 2)
    assert losses.reconstruction(x, y, losses.LossSettings(reconstruction="mse")).item() == pytest.approx(1.25)
    # Of prediction 0 the targets are at squared distances 1 and 1; of prediction 1 at 5 and 1.
    target = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    by_hand = (np.log(2) + np.log(1 + np.exp((1 - 5) / 2 / 4)) - 0) / 2
    predicted = torch.tensor([[1.0, 0.0], [0.0, 1.0]]) + torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert losses.balanced_mse(predicted, target, torch.tensor(2.0)).item() == pytest.approx(by_hand, rel=1e-6)


def test_contrast_by_hand_and_its_sign_pairing() -> None:
    visual, speech_vectors = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    # Four unit features; each has one positive at cosine 1 and two others at cosine 0.
    by_hand = -np.log(np.exp(2) / (np.exp(2) + 2))
    result = losses.contrastive(visual, speech_vectors, torch.tensor([0, 1]), temperature=0.5)
    assert result.item() == pytest.approx(by_hand, rel=1e-5)
    # +speech is paired with -vision: tokens of this pairing are closer than tokens of the opposite one.
    zero = torch.zeros(2, 5, 2)
    forward = Tokens(zero, speech_vectors[:, None], zero)
    away = Tokens(zero, -speech_vectors[:, None], -visual[:, None].expand(2, 5, 2))
    towards = Tokens(zero, -speech_vectors[:, None], visual[:, None].expand(2, 5, 2))
    labels = torch.tensor([0, 1])
    assert losses.both_contrasts(forward, away, labels) < losses.both_contrasts(forward, towards, labels)


def test_direction_loss_in_both_forms() -> None:
    a, b = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[-2.0, 0.0], [0.0, 1.0]])  # cosines -1 and 0
    assert losses.opposite(a, b, "code").item() == pytest.approx(0.5)
    assert losses.opposite(a, -b, "code").item() == pytest.approx((4 + 1) / 2)
    assert losses.opposite(a, -b, "paper").item() == pytest.approx((2 + 1) / 2)
