"""Packages that cannot be loaded, and a cache folder that is damaged or cannot be written: one line with its cause."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from talking_face.packages import require
from talking_face.pretrained import store
from talking_face.reasons import UserError
from talking_face.sealed import Damaged
from tests.models import models

BROKEN = {
    "import": "raise ImportError('libcudart.so.12: cannot open shared object file: No such file or directory')",
    "os": "raise OSError('libtorch_global_deps.so: cannot open shared object file')",
    "other": "raise RuntimeError('driver\\n too old')",
}


@pytest.fixture
def pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A weights folder with a file that the registry has no hash of, and an empty cache: the path of pins.json."""
    monkeypatch.setenv("CMET_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CMET_EVAL_WEIGHTS", str(tmp_path))
    (tmp_path / "facial_expression_model_weights.onnx").write_bytes(b"first")
    return tmp_path / "cache" / "weights" / store.PINS


def test_only_a_registered_hash_is_called_checked(pinned: Path) -> None:
    assert store.weight_file("dlib_5", models()).check == "hash checked"
    first, second = (store.weight_file("deepface_emotion", models()) for _ in range(2))
    assert (first.check, second.check) == ("pinned now", "same as pinned")
    assert first == second  # one key of the caches of loaded networks


def test_the_commands_say_what_a_hash_was_compared_with(pinned: Path) -> None:
    for words in ("pinned now", "same as pinned"):
        text = cmet_eval("weights", "list", "deepface_emotion", "dlib_5").stdout
        assert f"present, {words}: " in text and "present, hash checked: " in text
    text = cmet_eval("doctor").stdout
    assert re.search(r"deepface_emotion +\S+ \(same as pinned\)", text)


DAMAGED = [
    "",
    "{",
    "null",
    "[]",
    "[" * 9000,
    "5",
    '{"deepface_emotion": 5}',
    '{"deepface_emotion": null}',
    '{"a": "b"}',
]


@pytest.mark.parametrize("text", [*DAMAGED, "flipped"], ids=lambda text: text[:12])
def test_damaged_pins_are_one_line_and_are_not_made_again(pinned: Path, text: str) -> None:
    store.weight_file("deepface_emotion", models())
    if text == "flipped":
        text = pinned.read_text().replace("deepface_emotion", "deepface_emotiom")
    pinned.write_text(text)
    with pytest.raises(Damaged, match=r"pins\.json is damaged .* then delete it") as caught:
        store.weight_file("deepface_emotion", models())
    assert "\n" not in str(caught.value) and pinned.read_text() == text
    assert store.weight_file("dlib_5", models()).check == "hash checked"  # needs no pin


@pytest.mark.parametrize("what", ["a folder", "a file", "not writable"])
def test_a_cache_that_cannot_be_used_is_one_line(
    pinned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    if what == "a folder":
        pinned.mkdir(parents=True)
    elif what == "a file":
        (tmp_path / "cache").touch()
    else:
        monkeypatch.setenv("CMET_EVAL_CACHE", "/proc/here")  # nobody can make a folder there, not even root
    with pytest.raises(UserError, match=r"cannot be (read|written) \(.*\); set CMET_EVAL_CACHE") as caught:
        store.weight_file("deepface_emotion", models())
    assert "\n" not in str(caught.value)


def test_a_pinned_file_that_changes_is_refused(pinned: Path, tmp_path: Path) -> None:
    store.weight_file("deepface_emotion", models())
    (tmp_path / "facial_expression_model_weights.onnx").write_bytes(b"second")
    with pytest.raises(UserError, match="is not the pinned deepface_emotion"):
        store.weight_file("deepface_emotion", models())


@pytest.mark.parametrize("code", BROKEN.values(), ids=BROKEN)
def test_a_package_that_cannot_be_loaded_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    (tmp_path / "broken_package.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"^training needs broken_package, which cannot be loaded here \((lib|driver)"):
        require("broken_package", "training")
    with pytest.raises(UserError, match=r"^training needs no_such_package; run `pip install no_such_package`$"):
        require("no_such_package", "training")


@pytest.mark.parametrize("command", ["doctor", "train cmet --data .", "train evaluators --data ."])
def test_a_torch_that_cannot_be_loaded_is_one_line(tmp_path: Path, command: str) -> None:
    stub = tmp_path / "stub" / "torch"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text(BROKEN["import"])
    (tmp_path / "dataset.json").write_text("{}")  # so that the folder looks like a shard set
    done = cmet_eval(*command.split(), folder=tmp_path, PYTHONPATH=str(stub.parent))
    text = done.stdout if command == "doctor" else done.stderr
    assert "libcudart.so.12: cannot open shared object file" in text and "Traceback" not in done.stdout + done.stderr
    if command != "doctor":
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


def test_a_home_that_cannot_be_written(pinned: Path, tmp_path: Path) -> None:
    done = cmet_eval("weights", "list", "deepface_emotion", "dlib_5", HOME="/proc/nobody", CMET_EVAL_CACHE="")
    assert "set CMET_EVAL_CACHE to a folder that can be written" in done.stdout and "hash checked" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def cmet_eval(*words: str, folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, (environment.pop("PYTHONPATH", ""), str(Path(__file__).parents[2]))))
    return subprocess.run(
        [sys.executable, "-m", "cmet_eval.cli", *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **environment, "PYTHONPATH": path},
        timeout=120,
    )
