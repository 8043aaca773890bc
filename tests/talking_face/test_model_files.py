"""Model files: one value names the searched folders, and nothing else decides what a metric or method uses."""

from __future__ import annotations

import ast
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cmet_metrics.registry import get_metric
from talking_face.pretrained import evaluator_networks, model_files, trained_evaluators
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("talking_face", "metrics", "pipelines", "baselines", "leaderboards", "embedded_corpus", "cmet_reference",
         "cmet_eval")  # fmt: skip


def save_emotion(folder: Path, seed: int) -> Path:
    """An untrained emotion evaluator in `folder`."""
    torch.manual_seed(seed)
    trained_on = trained_evaluators.TrainedOn("emotion", "d", ("c",), ("s",), seed, ("happy", "sad"))
    trained_evaluators.save(
        folder / trained_evaluators.FILES["emotion"], evaluator_networks.build_emotion(2).state_dict(), trained_on
    )
    return folder


def test_the_environment_s_folders_come_before_those_of_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (model_files.WEIGHTS, model_files.CACHE, model_files.CHECKPOINTS):
        monkeypatch.delenv(name, raising=False)
    assert ModelFiles.from_environment() == ModelFiles()
    monkeypatch.setenv(model_files.WEIGHTS, "a:b")
    monkeypatch.setenv(model_files.CACHE, "c")
    monkeypatch.setenv(model_files.CHECKPOINTS, "d")
    files = ModelFiles.from_environment(tmp_path)
    assert files == ModelFiles(
        weights=(Path("a"), Path("b")),
        cache=Path("c"),
        evaluators=(tmp_path / "evaluators",),
        checkpoints=(Path("d"), tmp_path / "reference"),
    )
    assert pickle.loads(pickle.dumps(files)) == files and hash(files)


def test_a_signature_depends_on_the_given_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (ModelFiles(evaluators=(save_emotion(tmp_path / str(k), k),)) for k in (1, 2))
    signatures = {str(get_metric("ea:corpus", files).signature()) for files in (one, two, ModelFiles())}
    assert len(signatures) == 3
    before = str(get_metric("ea:corpus", one).signature())
    monkeypatch.setenv(model_files.WEIGHTS, str(tmp_path / "2"))
    assert str(get_metric("ea:corpus", one).signature()) == before
    # The environment comes first where a command asks for it.
    asked = ModelFiles.from_environment(tmp_path / "1")
    assert str(get_metric("ea:corpus", asked).signature()) == str(get_metric("ea:corpus", two).signature())


def test_a_worker_refuses_another_file_than_the_command_found(tmp_path: Path) -> None:
    files = trained_evaluators.with_hashes(ModelFiles(evaluators=(save_emotion(tmp_path, 1),)))
    assert trained_evaluators.find("emotion", files).sha256 == dict(files.hashes)["corpus_emotion.safetensors"]
    with pytest.raises(trained_evaluators.MissingWeights):
        trained_evaluators.find("syncnet", files)
    (tmp_path / "corpus_syncnet.safetensors").symlink_to(tmp_path / "corpus_emotion.safetensors")
    with pytest.raises(UserError):
        trained_evaluators.find("syncnet", files)
    save_emotion(tmp_path, 2)
    with pytest.raises(UserError, match="changed after the command started"):
        trained_evaluators.find("emotion", files)


def modules() -> Iterator[tuple[str, ast.Module]]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text("utf-8"))


def test_one_module_reads_the_environment_for_model_files_and_none_keeps_folders() -> None:
    names = {model_files.WEIGHTS, model_files.CACHE, model_files.CHECKPOINTS}
    for path, tree in modules():
        constants = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert path == "talking_face/pretrained/model_files.py" or not names & constants, path
        for node in tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            empty = isinstance(getattr(node, "value", None), ast.List | ast.Dict | ast.Set) and not ast.unparse(
                node.value  # type: ignore[attr-defined]
            ).strip("[]{}")
            for target in targets:
                if empty and isinstance(target, ast.Name):
                    assert not any(word in target.id.lower() for word in ("beside", "folder", "weight", "path")), path
