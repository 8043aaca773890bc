"""EBM, CEM-Net's memory: its equations, losses and settings against independent values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cmet_reference.cem_net import (
    ebm,
    ebm_stage,
)
from cmet_reference.cem_net.audio2mouth import POINTS
from tests.cmet_reference.cem_net_parts import (
    RNG,
    clips_of,
    every_gradient,
    faces,
    small,
    small_ebm,
)
from tests.models import models


@pytest.mark.parametrize("region", ["whole-face", "lower-half"])
def test_ebm_shapes_and_gradients(region):
    net, batch = small_ebm(region=region), faces()
    made = net(batch["rest"], batch["lips"], batch["blendshapes"], batch["audio_emotion"], batch["identity"])
    assert made.shape == (3, 5, 478, 3)
    total, parts = ebm.loss(net, batch, ebm.EbmLossWeights())
    assert set(parts) == {"landmarks", "reconstruction", "alignment", "picture"}
    total.backward()
    every_gradient(net)


# The paper's parts by the names of the layers: f_dlip's encoder, f_e's layers, M_v, M_k, the landmark decoder.
ENCODER, QUERY, VALUES, KEYS, DECODER = (
    {"added"},
    {"lips", "feeling", "seen", "who", "key"},
    {"values"},
    {"keys"},
    {"decoder"},
)


@pytest.mark.parametrize(
    ("name", "reached"),
    [
        ("landmarks", QUERY | KEYS | VALUES | DECODER),  # L_a2m of the keys' reading, eq. 11 and 13
        ("reconstruction", ENCODER | VALUES),  # eq. 8 to 10
        ("alignment", ENCODER | VALUES | QUERY | KEYS),  # eq. 12
        ("picture", {"picture", "to_emotion"}),  # the frozen extractor of the source's emotion: no other loss trains it
    ],
)
def test_each_loss_trains_the_parts_of_its_equations_and_no_others(name, reached):
    net, batch = small_ebm(), faces()
    ebm.loss(net, batch, ebm.EbmLossWeights())[1][name].backward()
    trained = {n for n, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert trained == {n for n, _ in net.named_parameters() if n.split(".")[0] in reached}


def test_losses_of_the_paper_by_hand():
    """Equations 8 to 13 of one frame, in numpy, from the network's encodings."""
    net, batch = small_ebm(region="whole-face"), {k: v[:1] for k, v in faces().items()}
    with torch.no_grad():
        _, parts = ebm.loss(net, batch, ebm.EbmLossWeights(continuity=0.0))
        base = net.base(batch["rest"], batch["lips"])
        code = net.encode(batch["truth"] - base)[0].numpy()
        picture = net.picture_emotion(batch["blendshapes"])
        query = net.query(batch["lips"], batch["audio_emotion"], picture, batch["identity"])[0].numpy()
    keys, values = net.keys.detach().numpy(), net.values.detach().numpy()

    def shares(of: np.ndarray, memory: np.ndarray) -> np.ndarray:
        near = of @ memory.T / np.outer(np.linalg.norm(of, axis=1), np.linalg.norm(memory, axis=1))
        e = np.exp(near / net.settings.temperature)
        return e / e.sum(axis=1, keepdims=True)

    of_values, of_keys = shares(code, values), shares(query, keys)
    assert float(parts["reconstruction"]) == pytest.approx(((code - of_values @ values) ** 2).sum(1).mean(), rel=1e-4)
    divergence = (of_keys * np.log(of_keys / of_values)).sum(1).mean()
    assert float(parts["alignment"]) == pytest.approx(divergence, rel=1e-4)
    with torch.no_grad():
        read = torch.from_numpy(of_keys @ values)[None]
        drawn = net.decoder(torch.cat([read, batch["lips"].flatten(2)], dim=2)).unflatten(2, (-1, 3))
        face = net(batch["rest"], batch["lips"], batch["blendshapes"], batch["audio_emotion"], batch["identity"])
    assert float(parts["landmarks"]) == pytest.approx(float((base + drawn - batch["truth"]).abs().mean()), rel=1e-4)
    assert torch.allclose(face, base + drawn, atol=1e-5)  # inference decodes what training decodes


def test_the_default_settings_have_no_part_of_ours():
    """Random slots of the seed, no table, no map to other points, the source's expression as it is."""
    net, batch = small_ebm(), faces()
    assert net.table is None and torch.equal(net.values, small_ebm().values)
    lips, rest, base = list(POINTS), batch["rest"][:, None], net.base(batch["rest"], batch["lips"])
    assert torch.equal(base[:, :, lips], rest[:, :, lips] + batch["lips"])
    assert (base != rest).any(dim=3).sum() == 3 * 5 * len(lips)
    shares = torch.rand(3).softmax(dim=0)
    assert net.decided_embedding(vector := torch.randn(5), shares) is vector
    assert torch.equal(net.start(batch["rest"], batch["lips"], None), net.base(batch["rest"], batch["lips"]))
    assert (net.change_share() == 1).all() and net.settings.strength == 1


def test_a_memory_without_a_table_starts_from_the_seed():
    """The stage with the paper's settings starts with the slots of its seed, whatever the clips show."""
    stage = ebm_stage.EbmStage(
        ebm.EbmNetSettings(slots=4, width=8, hidden=8, picture_emotion=4),
        ebm_stage.EbmSettings(2, batch=2),
        ebm.EbmLossWeights(),
        ebm_stage.FixedNetworks(small().eval(), None, files=models()),
        clips_of(),
        [],
        seed=3,
    )
    torch.manual_seed(3)
    fresh = ebm.EBM(stage.net.settings)
    assert all(torch.equal(a, b) for a, b in zip(stage.net.parameters(), fresh.parameters(), strict=True))


def test_ebm_without_parts_of_its_key():
    """A memory trained without AEE, pictures or identity has no weights for them and asks for none."""
    net, batch = small_ebm(audio_emotion=0, picture_emotion=0, identity=0), faces()
    total, parts = ebm.loss(net, {k: batch[k] for k in ("rest", "lips", "truth", "source")}, ebm.EbmLossWeights())
    assert set(parts) == {"landmarks", "reconstruction", "alignment"} and torch.isfinite(total)
    assert net(batch["rest"], batch["lips"]).shape == (3, 5, 478, 3)


def test_only_the_region_moves():
    net, batch = small_ebm(region="lower-half"), faces()
    net.moves[:200] = 0
    added = net(
        batch["rest"], batch["lips"], batch["blendshapes"], batch["audio_emotion"], batch["identity"]
    ) - net.base(batch["rest"], batch["lips"])
    assert (added[:, :, :200] == 0).all() and (added[:, :, 200:] != 0).any()


def test_addresses_and_alignment_by_hand():
    net = small_ebm(width=2, slots=2, temperature=0.5)
    memory = torch.tensor([[3.0, 0.0], [0.0, 0.1]])  # length does not count
    weights = net.address(torch.tensor([[[7.0, 0.0]]]), memory).exp()
    assert torch.allclose(weights[0, 0], torch.tensor([np.e**2, 1.0]).float() / (np.e**2 + 1))
    p, q = torch.tensor([[0.75, 0.25]]), torch.tensor([[0.5, 0.5]])
    divergence = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    assert float(ebm.alignment(p.log(), q.log())) == pytest.approx(divergence, rel=1e-5)
    assert float(ebm.alignment(q.log(), p.log())) != pytest.approx(divergence, rel=1e-2)  # from keys to values


def table(**changes) -> ebm.EBM:
    """A memory that begins as a table of three emotions."""
    given = {"hidden": 64, "width": 16, "identity": 0, "region": "whole-face", "table": True}
    net = small_ebm(**given, **changes).eval()
    torch.manual_seed(4)
    net.centres.copy_(torch.randn(3, 5))
    net.shown.copy_(torch.randn(3, 1434))
    ebm.init_as_table(net)
    return net


def test_a_memory_begins_as_a_table():
    net, batch = table(), faces()
    for k in range(3):
        embedding = net.centres[k].expand(3, -1)
        with torch.no_grad():
            added = net(batch["rest"], 0 * batch["lips"], 0 * batch["blendshapes"], embedding)[0, 0] - batch["rest"][0]
        near = [float(torch.cosine_similarity(added.flatten(), row, dim=0)) for row in net.shown]
        assert int(np.argmax(near)) == k and near[k] > 0.8


def test_an_emotion_is_decided():
    net = table(decision=0.0)
    vector, shares = torch.randn(5), torch.tensor([0.5, 0.3, 0.2])
    assert net.decided_embedding(vector, shares) is vector
    expected = {1.0: shares, 2.0: torch.tensor([25.0, 9.0, 4.0]) / 38, 100.0: torch.tensor([1.0, 0.0, 0.0])}
    for power, weights in expected.items():
        net.settings = replace(net.settings, decision=power)
        assert torch.allclose(net.decided_embedding(vector, shares), weights @ net.centres, atol=1e-5)


def test_the_source_s_emotion_is_taken_away_and_the_mouth_moves_less():
    net, batch = table(neutral=True, mouth=0.25, strength=2.0), faces()
    net.expression[0] = net.shown[1] / 3  # the first blendshape shows the second emotion
    shapes = torch.zeros(3, 52)
    shapes[:, 0] = 3
    base, start = net.base(batch["rest"], batch["lips"]), net.start(batch["rest"], batch["lips"], shapes)
    assert torch.allclose((base - start)[:, 0].flatten(1), net.shown[1].expand(3, -1), atol=1e-5)
    net.template[:, 1] = torch.linspace(-1, 1, 478)
    net.template[list(ebm.NOSE), 1] = torch.tensor([0.0, 0.5])
    kept = net.change_share()
    assert kept[10] == 1 and kept[-10] == 0.25 and float(net.change_share()[ebm.NOSE[0]]) == 1
    with torch.no_grad():
        picture = net.picture_emotion(shapes)
        weights = net.address(net.query(batch["lips"], batch["audio_emotion"], picture, None), net.keys).exp()
        whole = net.decode(weights @ net.values, batch["lips"])
        made = net(batch["rest"], batch["lips"], shapes, batch["audio_emotion"])
    assert torch.allclose(made, base + net.change_share()[:, None] * (start - base + 2 * whole), atol=1e-4)


def test_expression_map_is_a_ridge_regression():
    """It equals least squares with one more row for each input, whose value is the root of the penalty."""
    shapes, moved = RNG.normal(1, 2, (30, 4)), RNG.normal(size=(30, 6))
    found = ebm_stage.expression_map(shapes, moved, 0.5)
    penalty = 0.5 * shapes.var(axis=0).mean() * len(shapes)
    rows = np.concatenate([np.c_[shapes, np.ones(30)], np.sqrt(penalty) * np.eye(4, 5)])
    wanted = np.linalg.lstsq(rows, np.concatenate([moved, np.zeros((4, 6))]), rcond=None)[0]
    assert np.allclose(found, wanted, atol=1e-5)


def test_discriminant_is_the_bayes_rule_of_equal_gaussians():
    """Without shrinking, its scores differ by the log odds of the fitted Gaussians."""
    x = np.concatenate([RNG.normal(size=(40, 2)) @ np.array([[1, 0.5], [0, 1]]) + at for at in ((0, 0), (2, 1))])
    classes = np.repeat([0, 2], 40)
    rule = ebm_stage.discriminant(x, classes, 3, 0.0)
    means = [x[classes == k].mean(axis=0) for k in (0, 2)]
    inside = np.concatenate([x[classes == k] - m for k, m in zip((0, 2), means, strict=True)])
    inverse = np.linalg.inv(inside.T @ inside / len(inside))
    at = np.array([0.7, -0.2])
    scores = at @ rule[:-1] + rule[-1]
    odds = [-0.5 * (at - m) @ inverse @ (at - m) for m in means]
    assert scores[2] - scores[0] == pytest.approx(odds[1] - odds[0], rel=1e-3)
    assert scores.argmin() == 1  # no example, never named


def test_ebm_learns_a_batch_by_heart():
    net, batch = small_ebm(hidden=32), faces()
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    weights = ebm.EbmLossWeights(continuity=0.1)
    first = None
    for _ in range(40):
        value, _ = ebm.loss(net, batch, weights)
        first = first or float(value.detach())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert float(value.detach()) < 0.8 * first
