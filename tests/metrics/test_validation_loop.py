"""`MetricSet`: one result for every division among processes; and every block of docs/how_to/validation_loop.md."""

from __future__ import annotations

import importlib.util
import pickle
import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cmet_eval
from cmet_metrics.base import Sample
from cmet_metrics.metric_set import MetricSet
from talking_face.reasons import UserError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how_to" / "validation_loop.md"
KEYS = ["psnr", "psnr:pooled", "ssim:skimage"]


def clip(seed: int, frames: int = 3) -> Sample:
    return Sample(
        np.random.default_rng(seed).integers(0, 256, (frames, 12, 12, 3), dtype=np.uint8), name=f"clip {seed}"
    )


def prediction(real: Sample, level: int) -> Sample:
    """Level 0 is identical to its target (infinite), level 3 has another length (a reason)."""
    frames = real.frames ^ np.uint8(level)
    return Sample(frames[:2] if level == 3 else frames)


@settings(max_examples=30, deadline=None)
@given(
    levels=st.lists(st.integers(0, 9), min_size=1, max_size=10),
    ranks=st.integers(1, 4),
    order=st.randoms(use_true_random=False),
)
def test_every_division_among_processes_gives_exactly_the_same_result(levels, ranks, order) -> None:
    whole, parts = MetricSet(KEYS), [MetricSet(KEYS) for _ in range(ranks)]
    clips = [(f"c{k}", clip(k), level) for k, level in enumerate(levels)]
    for id, real, level in clips:
        whole.update(prediction(real, level), real, id)
    order.shuffle(clips)
    for k, (id, real, level) in enumerate(clips):
        parts[k % ranks].update(prediction(real, level), real, id)
    # A sampler repeats clips, so that all processes have the same number.
    repeated = parts[-1 - (len(clips) - 1) % ranks]
    if clips[0][0] not in repeated.scores():
        repeated.update(prediction(clips[0][1], clips[0][2]), clips[0][1], clips[0][0])
    sent = [pickle.loads(pickle.dumps(part)) for part in parts]
    order.shuffle(sent)
    total = sent[0].merge(sent[1:])
    assert total.compute() == whole.compute() and total.as_dict() == whole.as_dict()
    assert parts[0].merge(sent).as_dict() == whole.as_dict(), "gathered sets contain the own set"
    assert sent[0].merge([sent[-1].merge(sent[1:-1])] if len(sent) > 1 else []).compute() == whole.compute()


def test_means_have_coverage_and_reasons_and_flat_names() -> None:
    metrics = MetricSet(["psnr", "psnr:frame-mean", "lip_energy"])
    real = clip(0)
    scores = metrics.update(prediction(real, 1), real, "a")
    assert list(scores) == ["psnr:frame-mean", "lip_energy:correlation"], "one metric counts once"
    metrics.update(prediction(real, 3), real, "b")
    metrics.update(prediction(real, 1), None, "c")
    found = metrics.compute(expected=5)
    assert str(found["psnr:frame-mean"]) == "48.13 (1 of 5; 1 length-mismatch, 2 missing-output, 1 no-ground-truth)"
    assert str(found["lip_energy:correlation"]) == "- (0 of 5; 2 missing-output, 3 no-audio)"
    assert metrics.as_dict() == {
        **{"psnr:frame-mean": scores["psnr:frame-mean"].value, "psnr:frame-mean/n": 1.0, "psnr:frame-mean/N": 3.0},
        **{"lip_energy:correlation/n": 0.0, "lip_energy:correlation/N": 3.0},
    }
    assert list(metrics.scores()) == ["a", "b", "c"] and len(metrics) == 3
    assert MetricSet(["psnr"]).as_dict() == {"psnr:frame-mean/n": 0.0, "psnr:frame-mean/N": 0.0}


def test_one_id_for_two_clips_is_an_error_and_a_repeated_clip_is_chosen_in_every_order() -> None:
    real, other = clip(0), clip(1)
    one, two, three = MetricSet(["psnr"]), MetricSet(["psnr"]), MetricSet(["psnr"])
    one.update(prediction(real, 1), real, "a")
    with pytest.raises(ValueError, match="clip 'a' is in this set already"):
        one.update(prediction(real, 1), real, "a")
    two.update(prediction(other, 1), other, "a")
    with pytest.raises(ValueError, match="two clips have the id 'a'"):
        one.merge([two])
    three.update(prediction(real, 2), real, "a")  # the network's output differs on another process
    assert one.merge([three]).as_dict() == three.merge([one]).as_dict()
    without = [MetricSet(["psnr"]) for _ in range(2)]
    for part in without:
        part.update(prediction(real, 1), None, "a")
    assert without[0].merge(without).compute()["psnr:frame-mean"].N == 1
    with pytest.raises(ValueError, match="two clips"):
        one.merge(without)
    with pytest.raises(ValueError, match="other metrics: ssim"):
        MetricSet(["psnr"]).merge([MetricSet(["psnr", "ssim"])])


def test_wrong_uses_are_one_line_that_says_what_to_write() -> None:
    with pytest.raises(UserError, match="did you mean psnr"):
        MetricSet(["psnrr"])
    for keys in ("psnr", []):
        with pytest.raises(ValueError, match=r"\['psnr', 'ssim'\]"):
            MetricSet(keys)
    with pytest.raises(TypeError, match=r"ndarray; write as_sample\(x"):
        MetricSet(["psnr"]).update(clip(0).frames, None, "a")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="its name in the data set, a text, got 3"):
        MetricSet(["psnr"]).update(clip(0), clip(0), 3)  # type: ignore[arg-type]


class Logged(dict[str, float]):
    """A stand-in of loggers: it stores what it is given."""

    def log(self, values: dict[str, float], step: int = 0) -> None:
        self.update(values)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self[name] = value

    def __enter__(self) -> Logged:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def stand_ins(monkeypatch: pytest.MonkeyPatch, logged: Logged) -> None:
    """Puts a stand-in for every logger that is not installed."""

    class LightningModule:
        def __call__(self, x: Any) -> Any:
            return self.forward(x)  # type: ignore[attr-defined]

        def log_dict(self, values: dict[str, float]) -> None:
            logged.update(values)

    for name, content in {
        "lightning": {"LightningModule": LightningModule},
        "torch.utils.tensorboard": {"SummaryWriter": lambda folder: logged},
        "wandb": {"init": lambda project: logged},
    }.items():
        if importlib.util.find_spec(name.removeprefix("torch.utils.")) is None:
            module = types.ModuleType(name)
            vars(module).update(content)
            monkeypatch.setitem(sys.modules, name, module)


def test_every_block_of_the_page_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("accelerate")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    logged = Logged()
    stand_ins(monkeypatch, logged)
    rng = np.random.default_rng(0)
    clips = [torch.from_numpy(rng.uniform(-1, 1, (4, 3, 16, 16)).astype("f4")) for _ in range(5)]
    data = [{"input": x, "video": x, "id": f"clip-{k}"} for k, x in enumerate(clips)]
    names: dict[str, Any] = {"loader": torch.utils.data.DataLoader(data, batch_size=2), "step": 1}
    names["model"] = torch.nn.Tanh()
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    assert "psnr:frame-mean" in capsys.readouterr().out
    assert len(names["metrics"]) == 5
    found = names["metrics"].as_dict()
    expected = np.mean([
        (20 * np.log10(2) - 10 * np.log10(((torch.tanh(x) - x) ** 2).mean(dim=(1, 2, 3)).numpy())).mean() for x in clips
    ])  # fmt: skip
    assert found["psnr:frame-mean"] == pytest.approx(expected, abs=1e-4)
    module = names["Validated"]()
    module.forward = torch.tanh
    module.on_validation_epoch_start()
    for k, batch in enumerate(names["loader"]):
        module.validation_step(batch, k)
    if logged:
        module.on_validation_epoch_end()
        assert logged["psnr:frame-mean"] == pytest.approx(found["psnr:frame-mean"])
        assert logged["val/ssim:wang2004/n"] == 5.0


def test_two_processes_gather_their_sets(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    context = torch.multiprocessing.get_context("fork")
    found = context.Queue()
    workers = [context.Process(target=_rank, args=(rank, str(tmp_path / "meet"), found)) for rank in range(2)]
    for worker in workers:
        worker.start()
    results = [found.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    alone = MetricSet(["psnr"])
    for k in range(3):
        alone.update(prediction(clip(k), k + 4), clip(k), f"c{k}")
    assert results == [alone.as_dict()] * 2


def _rank(rank: int, meet: str, found: Any) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=2)
    metrics = MetricSet(["psnr"])
    for k in ((0, 2), (1, 0))[rank]:  # clip 0 is repeated
        metrics.update(prediction(clip(k), k + 4), clip(k), f"c{k}")
    parts: list[Any] = [None, None]
    dist.all_gather_object(parts, metrics)
    found.put(metrics.merge(parts).as_dict())
    dist.destroy_process_group()


def test_the_public_names_are_those_of_the_page() -> None:
    assert cmet_eval.MetricSet is MetricSet and cmet_eval.as_sample.__name__ == "as_sample"
