"""Typical mistakes in the files that users write by hand: each is one line with the file, the field and a cure."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from cmet_baselines.entry import read_entry
from cmet_baselines.registry import get_method
from cmet_eval.calibration.answers import read_values
from cmet_eval.cli import build
from cmet_eval.protocol.published_lists import read_list
from cmet_eval.protocol.setting import get_setting
from cmet_leaderboards.bands import read_bands
from cmet_pipelines.configure import configure, read_config
from cmet_pipelines.shards import ShardSet
from cmet_reference.cem_net.train import stage_settings
from cmet_reference.cmet.train import read_settings
from cmet_reference.training import config
from talking_face.reasons import UserError
from talking_face.sealed import Damaged, read_sealed_table, sealed, write_sealed_table
from tests.hostile.world import TEXTS

KEY = "may contain a-z, 0-9, '.' and '-' only, and has to begin with a letter or a digit"
READERS = {
    "setting.toml": lambda path: get_setting(str(path)),
    "program.toml": read_entry,
    "class.toml": read_entry,
    "finished.toml": read_entry,
    "config.toml": lambda path: configure("clips", read_config(path)),
    "cmet.toml": lambda path: read_settings(config.load("cmet_reference.cmet", str(path))),
    "cem-net.toml": lambda path: stage_settings(config.load("cmet_reference.cem_net", str(path)), "audio2mouth"),
    "rows.csv": read_list,
    "values.csv": read_values,
    "bands.csv": read_bands,
}
BANDS = "metric,signature,unit,source,band\npsnr,psnr|version:1,dB,embedded,1.5\n"


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("setting.toml", "seeds = 2", "seeds = nan", "the setting PATH: seeds: it should be an integer, not nan"),
        ("setting.toml", "seeds = 2", "seeds = true", "the setting PATH: seeds: it should be an integer, not True"),
        ("setting.toml", "seeds = 2", "sedes = 2", "the setting PATH: unknown field 'sedes'; did you mean seeds?"),
        ("setting.toml", '"cells"', '"cell"', "the setting PATH: draw: it should be 'cells', 'clips', 'rows' or "
         "'no-truth', not 'cell'"),
        ("setting.toml", '"to-happy"', '"To happy"', f"the setting PATH: name: 'To happy' {KEY}"),
        ("setting.toml", '"to-happy"', '"../x"', "the setting PATH: name: '../x' is a path or begins with a dot; a "
         "name has no / or \\ and begins with a letter or digit"),
        ("setting.toml", '"to-happy"', '"board"', "the setting PATH: name: 'board' is the name of a file of every "
         "board; choose another name"),
        ("setting.toml", '["happy"]', '["=1+1"]', "the setting PATH: target_emotions.0: '=1+1' begins with '=', which "
         "spreadsheets read as a formula; choose another name"),
        ("setting.toml", '["psnr", "ssim"]', '"psnr"', "the setting PATH: metrics: it should be a list, not 'psnr'"),
        ("setting.toml", "split", "a = " + 2000 * "[" + "\nsplit", "the setting PATH is not TOML: it is "
         "nested too deeply"),
        ("program.toml", "20.0", "-5", "the method PATH: command.deadline_s: it should be greater than 0, not -5"),
        ("program.toml", "20.0", "inf", "the method PATH: command.deadline_s: it should be a finite number, not inf"),
        ("program.toml", '"{n_frames}"', '"{n_frames:09999999999}"', "the method PATH: command.command: a placeholder "
         "has no format; write {seed} and not {seed:03d}"),
        ("program.toml", '"owner/name"', '"javascript:alert(1)"', "the method PATH: code.repository: "
         "'javascript:alert(1)' is neither owner/name nor an address that begins with http:// or https://"),
        ("program.toml", 'revision = "1"', 'revision = "=1"', "the method PATH: revision: '=1' begins with '=', which "
         "spreadsheets read as a formula; choose another name"),
        ("class.toml", '"sway:Sway"', '"sway.py"', "the method PATH: target: it must be module:Class"),
        ("class.toml", "[process]", "[proces]", "the method PATH: unknown field 'proces'; did you mean process?"),
        ("finished.toml", "{setting}/{pair}", "../{pair}", "the method PATH: videos.pattern: the pattern "
         "'../{pair}.mp4' is not a path inside the folder of the videos"),
        ("finished.toml", "{pair}", "{pair.__class__}", "the method PATH: videos.pattern: the pattern "
         "'{setting}/{pair.__class__}.mp4' may contain {pair} and {setting} only"),
        ("config.toml", "fps = 25.0", "fps = nan", "PATH: fps: it should be a finite number, not nan"),
        ("config.toml", "require_audio = false", "require_audio = 0", "PATH: require_audio: it should be true or "
         "false, not 0"),
        ("config.toml", "size = 64", 'size = "64"', "PATH: size: it should be an integer, not '64'"),
        ("cmet.toml", "heads = 2", "heads = -2", "[connector]: heads: it should be from 1 to 100000, not -2"),
        ("cmet.toml", "heads = 2", "heads = 3", "[connector]: heads: it should divide width, which is 16, without a "
         "remainder, not 3"),
        ("cmet.toml", "heads = 2", "haeds = 2", "[connector]: there is no haeds; did you mean heads?"),
        ("cmet.toml", "rate = 1e-3", "rate = inf", "the settings of cmet: rate: it should be from 0 to 1e+06, not inf"),
        ("cmet.toml", "dropout = 0.0", "dropout = 1.0", "[connector]: dropout: it should be from 0 to below 1, "
         "not 1.0"),
        ("cem-net.toml", "steps = 2", "steps = -2", "[audio2mouth]: steps: it should be from 1 to 1e+09, not -2"),
        ("cem-net.toml", "steps = 2", "steps = 2.5", "PATH, [audio2mouth]: steps is 2.5, and should be like 662300"),
        ("rows.csv", "source_clip,", "source,", "the list of rows PATH has no column source_clip; its first line has "
         "'speaker', 'emotion', 'ground_truth_clip', 'source', 'sentence_id'"),
        ("rows.csv", "E,happy", "E", "the list of rows PATH, line 2: 4 cells, and the first line has 5"),
        ("rows.csv", "E,happy", "E,", "the list of rows PATH, line 2: emotion is empty"),
        ("values.csv", ",40,", ",nan,", "PATH, line 2: value is 'nan'; it should be a finite number"),
        ("values.csv", ",40,", ",,", "PATH, line 2: the row needs a value or a reason, and not both"),
        ("bands.csv", "1.5", "-1", "PATH, line 2: band is '-1'; it should be a finite number from 0"),
        ("bands.csv", ",embedded", ',"embedded', "the file of noise bands PATH is not CSV after line 2: "
         "unexpected end of data"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(name: str, old: str, new: str, message: str, tmp_path: Path) -> None:
    path, text = tmp_path / name, TEXTS.get(name, BANDS)
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError) as found:
        READERS[name](path)
    assert str(found.value).replace(str(path), "PATH") == message


@pytest.mark.parametrize("name", READERS)
def test_what_is_not_a_text_file_is_refused_at_once(name: str, tmp_path: Path) -> None:
    path = tmp_path / name

    def refused() -> str:
        with pytest.raises(UserError) as found:
            READERS[name](path)
        return str(found.value)

    assert "absent" in refused() or "no file" in refused()
    path.mkdir()
    assert "is a folder" in refused()
    path.rmdir()
    os.mkfifo(path)
    assert "is not a regular file" in refused()
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "is not a regular file" in refused()
    path.unlink()
    path.write_bytes(TEXTS.get(name, BANDS).encode() + b"\xe9")
    assert "is not UTF-8 text" in refused()
    with path.open("r+b") as file:
        file.truncate(1 << 32)
    assert "at most 64000000 are read" in refused()


def test_places_that_an_entry_names_are_checked_before_a_run(tmp_path: Path) -> None:
    for name, old, new, message in (
        ("program.toml", '"/bin/false"', '"/bin/absent"', "still: there is no program /bin/absent, "
         "or it cannot be executed"),
        ("program.toml", 'folder = "."', 'folder = "gone"', "still: no folder PATH/gone"),
        ("class.toml", 'folders = ["."]', 'folders = [".", "gone"]', "sway: no folder PATH/gone"),
        ("class.toml", "[process]", '[process]\npython = "/bin/py"', "sway: there is no program /bin/py, "
         "or it cannot be executed"),
        ("finished.toml", "zzz", "zzz", "finished: no folder PATH/made"),
    ):  # fmt: skip
        (tmp_path / name).write_text(TEXTS[name].replace(old, new))
        with pytest.raises(UserError) as found:
            get_method(str(tmp_path / name))
        assert str(found.value).replace(str(tmp_path), "PATH") == message


@pytest.mark.parametrize(
    "words",
    [
        ("preprocess", "clips", "media", "out", "--memory", "inf"),
        ("preprocess", "clips", "media", "out", "--allow-failures", "nan"),
        ("score", "--videos", "v", "--pairs", "p", "--data", "d", "--method-name", "m", "--deadline", "inf"),
        ("verify", "--run", "rows", "--videos", "v", "--share", "nan"),
        ("pairs", "neutral-base", "--data", "d", "-o", "p.csv", "--seeds", "2147483648"),
        ("run", "--method", "static-reference", "--workers", "2147483648"),
    ],
)
def test_an_option_is_a_finite_number_in_a_range(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(build(words[0]), words)
    assert result.exit_code == 2 and f"Invalid value for '{words[-2]}'" in result.output


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"digest": None}, "digest: it should be a text, not null"),
        ({"complete": "yes"}, "complete: it should be True, not 'yes'"),
        ({"dataset": "../x"}, "dataset: '../x' is a path or begins with a dot"),
        ({"shards": {"part.parquet": "board"}}, "shards: it should be a table, not 'board'"),
        ({"shards": {"../part.parquet": {}}}, "'../part.parquet' is a path or begins with a dot"),
    ],
)
def test_a_card_of_a_stranger_is_refused(
    changes: dict[str, object], problem: str, shards: Path, tmp_path: Path
) -> None:
    card = json.loads((shards / "dataset.json").read_text())
    (tmp_path / "dataset.json").write_text(json.dumps(sealed(card | changes)))
    with pytest.raises(Damaged) as found:
        ShardSet(tmp_path)
    assert problem in str(found.value) and "\n" not in str(found.value)


def test_a_table_of_clips_of_a_stranger_is_refused(shards: Path, tmp_path: Path) -> None:
    table = read_sealed_table(shards / "clips.parquet", "")
    shutil.copy(shards / "dataset.json", tmp_path)
    names = table.schema.names
    wrong = {
        "a cell of speaker is empty": ("speaker", pa.nulls(len(table), pa.string())),
        "a number of n_frames is negative": ("n_frames", pa.array([-1] * len(table))),
        "a column has another type": ("row_group", pa.array(["x"] * len(table))),
        "it has a clip twice": ("clip_id", pa.array(["clips/a"] * len(table))),
    }
    for problem, (name, column) in wrong.items():
        write_sealed_table(table.set_column(names.index(name), name, column), tmp_path / "clips.parquet")
        with pytest.raises(Damaged, match=problem):
            _ = ShardSet(tmp_path).clips
