"""Options of preprocessing: a TOML file, the command line that wins over it, and readers that declare their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

import cmet_pipelines
from cmet_pipelines.configure import Value, configure, read_config, reader_fields
from cmet_pipelines.processing import ProcessingSettings
from cmet_pipelines.readers import READERS, Discovery, Reader, ReaderOptions, discover
from cmet_pipelines.readers.archives import files
from cmet_pipelines.readers.mead import MeadOptions
from cmet_pipelines.shards import ShardSet
from talking_face.clip import Clip, MediaSource
from talking_face.reasons import Reason, UserError

PAGE = Path(__file__).parents[2] / "docs" / "how_to" / "add_a_dataset.md"
COMMAND = [sys.executable, "-m", "cmet_eval.cli", "preprocess"]


def _run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | environment)


def test_the_command_line_wins_over_the_file(small_mead: Path, tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text('fps = 20.0\nenlarge = 1.6\nmin_frames = 3\nsize = 64\nview = "all"\nrequire_audio = false\n')
    done = _run("mead", small_mead, tmp_path / "out", "--config", config, "--size", 96, "--limit", 1, "--workers", 0)
    assert done.returncode == 0, done.stderr
    shards = ShardSet(tmp_path / "out")
    expected = {"fps": 20.0, "enlarge": 1.6, "min_frames": 3, "size": 96, "view": "all", "require_audio": False}
    assert {name: shards.card["settings"][name] for name in expected} == expected
    clip = shards.clips.iloc[0]
    assert (clip["fps"], clip["size"], clip["n_frames"]) == (20.0, 96, 16)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fsp = 25", "unknown setting fsp; did you mean fps?"),
        ("fps = 0", "fps: it should be greater than 0, not 0"),
        ('subset = "main"', "subset does nothing for mead; it is an option of lrs2"),
        ("fps = ", "is not TOML"),
    ],
)
def test_a_wrong_file_is_refused_in_a_line(text: str, words: str, small_mead: Path, tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text(text)
    done = _run("mead", small_mead, tmp_path / "out", "--config", config)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
    assert str(config) in done.stderr and not (tmp_path / "out").exists()


def test_values_are_checked_under_the_name_that_was_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--deadline: it should be greater than 0, not -1"):
        configure("mead", {"deadline_s": Value(-1, "--deadline")})
    with pytest.raises(UserError, match=r"^--view does nothing for lrs2; it is an option of mead"):
        configure("lrs2", {"view": Value("down", "--view")})
    assert configure("lrs2", {"view": Value("front", "--view")})[0] == ProcessingSettings()  # the default
    with pytest.raises(UserError, match="is absent"):
        read_config(tmp_path / "absent.toml")
    settings, options = configure("mead", {"view": Value("down", "--view"), "fps": Value(30, "--fps")})
    assert settings.fps == 30 and options == MeadOptions(view="down")


def test_another_readers_options_are_a_mistake(small_mead: Path) -> None:
    with pytest.raises(TypeError, match="lrs2 takes Lrs2Options, got MeadOptions"):
        discover("lrs2", small_mead, MeadOptions())


def test_a_readers_option_may_not_have_the_name_of_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    class WrongOptions(ReaderOptions):
        fps: float = 30.0

    wrong = Reader("wrong", READERS["clips"].discover, WrongOptions)
    monkeypatch.setattr("cmet_pipelines.configure.READERS", {"wrong": wrong})
    with pytest.raises(TypeError, match=r"WrongOptions\.fps: this is a setting of all datasets"):
        reader_fields()


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"emotion": 99}, r"emotion of own/a is 99; it must be of type str \| None"),
        ({"video": "a.mp4"}, "video of own/a is 'a.mp4'; it must be of type MediaSource"),
        ({"clip_id": "a"}, "clip_id 'a' must start with 'own/'"),
        ({"dataset": "owns"}, "dataset of own/a is 'owns'; it must be 'own'"),
        ({"clip_id": "own/b"}, r"two clips have the id own/b; finish\(\) keeps one"),
        ({"clip_id": "own/c"}, r"not sorted by clip_id; return into\.finish\(\)"),
    ],
)
def test_a_reader_that_breaks_a_rule_is_named(
    changed: dict[str, object], rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [Clip(clip_id=f"own/{name}", dataset="own", speaker=name, video=MediaSource("x.mp4")) for name in "ab"]
    reader = Reader("own", lambda root, options: Discovery(list(clips)))
    monkeypatch.setattr("cmet_pipelines.readers.READERS", {"own": reader})
    assert discover("own", tmp_path).clips == clips
    clips[0] = replace(clips[0], **changed)
    with pytest.raises(UserError, match=f"the reader of own breaks a rule: .*{rule}"):
        discover("own", tmp_path)


def test_a_file_that_a_reader_does_not_mention_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.mp4", "a.wav", "b.txt", "forgotten.mp4"):
        (tmp_path / name).write_text(name)
    with tarfile.open(tmp_path / "c.tar", "w") as archive:
        for name in ("a.mp4", "b.txt"):
            archive.add(tmp_path / name, arcname=f"in/{name}")

    def find(root: Path, options: ReaderOptions) -> Discovery:
        into = Discovery()
        found = {file.name: file.source for file in files(root, into)}
        sound = found["a.wav"]
        for name, audio in (("a.mp4", sound), ("c.tar!in/a.mp4", None)):
            clip_id = f"own/{name.partition('!')[0]}"
            into.clips.append(Clip(clip_id=clip_id, dataset="own", speaker="a", video=found[name], audio=audio))
        into.skip("b.txt", Reason.NOT_A_CLIP, "a text")
        return into.finish()

    monkeypatch.setattr("cmet_pipelines.readers.READERS", {"own": Reader("own", find)})
    (note,) = discover("own", tmp_path).notes
    assert note.startswith("2 files are neither part of a clip nor skipped with a reason, such as c.tar!in/b.txt")


def test_help_names_every_readers_options() -> None:
    printed = " ".join(_run("--help", COLUMNS="100").stdout.split())
    for name, owners in reader_fields().items():
        assert f"--{name.replace('_', '-')}" in printed
        for dataset in owners:
            assert f"{dataset}: " in printed
    assert sorted(READERS) == ["clips", "crema-d", "lrs2", "mead", "meld"]


def test_content_of_a_set_is_what_it_was() -> None:
    """The settings that digests cover, in today's words: every set holds the options of four datasets."""
    for dataset, reader in READERS.items():
        content = ProcessingSettings().content(dataset, reader.options())
        content.pop("face_landmarker")
        assert json.dumps(content) == (
            '{"fps": 25.0, "align": "box", "size": 256, "enlarge": 1.5, "codec": "jpeg-q97", "require_audio": true, '
            '"min_frames": 5, "max_seconds": 600.0, "min_valid_fraction": 0.5, "view": "front", "split": "auto", '
            '"numbering": null, "emotion_label": "intended", "subset": "all", "defects": true, "clips": null, '
            f'"version": "1.3.0", "dataset": "{dataset}"}}'
        )


def test_the_reader_of_the_how_to_works_from_one_new_file(small_mead: Path, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    package = tmp_path / "packages" / "cmet_pipelines"
    shutil.copytree(Path(cmet_pipelines.__file__).parent, package)
    (package / "readers" / "ravdess.py").write_text(code)
    (package / "readers" / "draft.py").write_text("")
    root = tmp_path / "ravdess" / "Actor_12"
    root.mkdir(parents=True)
    video = sorted(small_mead.rglob("*.mp4"))[0]
    for name in ("01-01-06-01-02-01-12.mp4", "01-02-03-02-01-01-12.mp4", "03-01-06-01-02-01-12.wav"):
        shutil.copy(video, root / name)
    path = os.pathsep.join([str(package.parent), os.environ.get("PYTHONPATH", "")])
    assert "ravdess: take sung clips, too" in " ".join(_run("--help", PYTHONPATH=path, COLUMNS="100").stdout.split())
    arguments = ("ravdess", root.parent, tmp_path / "out", "--no-require-audio", "--workers", 0)
    done = _run(*arguments, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    shards = ShardSet(tmp_path / "out")
    (clip,) = shards.clips.to_dict("records")
    assert (clip["clip_id"], clip["emotion"], clip["intensity"]) == ("ravdess/12/01-06-01-02-01", "fear", 1)
    assert dict(shards.ledger["status"].value_counts()) == {"kept": 1, "excluded": 1, "skipped": 1}
    assert shards.card["settings"]["songs"] is False
    again = _run(*arguments, "--songs", PYTHONPATH=path)
    assert "readers/draft.py does not define READER" in _run("draft", root, tmp_path / "d", PYTHONPATH=path).stderr
    assert again.returncode == 2 and "songs: False there, True asked for" in again.stderr
