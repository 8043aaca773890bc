"""Wrong uses of every command: one line with what to type instead, exit code 2, and nothing is written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cmet_eval import cli
from cmet_eval.protocol.draw import Draw, draw_from_shards
from cmet_eval.protocol.pair_files import write_pairs
from cmet_eval.protocol.setting import get_setting
from cmet_pipelines.shards import ShardSet

# The words of a command -> what its line contains. They run in a folder with a shard set `shards`, which is also below
# `run`, a pair list `rc.csv` of the setting reconstruction, a folder `videos` with one file, and a file `text.txt`.
USES: dict[str, str] = {
    # No or wrong commands and options
    "rnu": "no command rnu; did you mean run?",
    "run": "--method NAME is missing; for example: cmet-eval run --method",
    "run --metod cmet": "no option --metod; did you mean --method",
    "run --method": "'--method' requires an argument",
    "run --method cmet --workers two": "--workers: it should be a whole number",
    "run --method cmet --workers 0": "--workers: it should be at least 1",
    "compare one": "OTHER is missing; for example: cmet-eval compare",
    "compare one two three": "three: not expected here",
    # Names
    "run --method cmett": "no method named 'cmett'; did you mean cmet",
    "run --method cmet --setting cross-emotin": "no setting named 'cross-emotin'; did you mean cross-emotion",
    "run --method cmet --metrics psnrr": "no metric is called 'psnrr'; did you mean psnr",
    "run --method cmet --metrics lse_c:corpus --metrics lse_c:lm": "score them in two runs",
    "run --method cmet --metrics psnr --profile paper": "--profile",
    "run --method source-video --scheduler localhost": "tcp://HOST:PORT",
    "run --method source-video --data shards --scheduler tcp://127.0.0.1:1": "no Dask scheduler answers",
    "run --method wav2lip": "wav2lip",
    "run --method source-video --split tran": "--split tran; did you mean train",
    "run --method source-video --data shards --split tets": "--split tets; did you mean test",
    "pairs neutral-base --data shards -o p.csv --split tets": "--split tets; did you mean test",
    "report emotion-proportion --data shards --split tets": "--split tets; did you mean test",
    "score --videos videos --pairs rc.csv --data shards --method-name a --metrics ea:corpus": "none of ea",
    "pairs cross-emotin --data shards -o p.csv": "did you mean cross-emotion",
    "calibrate --data shards --metrics psnrr": "did you mean psnr",
    "leaderboard --run run --metrics mine:Own": "no module mine",
    "leaderboard --run run --bands-of embeded": "did you mean embedded",
    "train cmett --data shards": "'cmett' is not one of 'cmet'",
    "train cmet --data shards --stage cmett": "--stage cmett; did you mean cmet",
    "train cmet --data shards --config papre": "did you mean paper",
    "train cmet --data shards --precision fp8": "fp32",
    "train cmet --data shards --device gpu": "--device gpu",
    "train cmet --data shards --device cuda": "--device cpu",
    "train cmet --data shards --precision fp16": "--precision bf16",
    "train cmet --data shards --config absent.toml --out kept": "absent.toml",
    "train evaluators --data shards --device cuda": "--device cpu",
    "train evaluators --data shards --stage cmet": "--stage is not an option of `cmet-eval train evaluators`",
    "synth mead corpus --one-sentence --takes 2": "--takes is not an option of `cmet-eval synth --one-sentence`",
    "train cmet --data a=shards": "one --data must be without a name",
    "report confusoin": "'confusoin' is not one of",
    "report emotion-proportion --data shards --out x --classifier ferr": "did you mean fer",
    "baselines list cmet": "`cmet-eval baselines show cmet` shows one method",
    "baselines show": "name the method: `cmet-eval baselines show NAME`",
    "baselines show cmett": "did you mean cmet",
    "weights fetch": "name the weights to fetch",
    "weights fetch syncnet": "did you mean",
    "synth creema-d x": "did you mean crema-d",
    "synth mead x --size big": "--size big",
    "preprocess clisp videos x": "did you mean clips",
    "preprocess clips videos x --align eat": "did you mean eat-128",
    "study make --run run --data shards": "--method",
    "study make --run run --data shards --setting tutti --method a": "run has no pairs of the setting tutti",
    "demo --max-pairs 2": "--max-pairs: it should be at least 4",
    # Files and folders
    "run --method cmet --data nowhere": "no folder nowhere; name a shard set with --data",
    "run --method cmet --data shard": "no folder shard; did you mean shards",
    "run --method cmet --data run": "name run/shards with --data",
    "run --method cmet --data text.txt": "text.txt is a file, not a folder; name a shard set with --data",
    "run --method cmet --data videos": "holds no shards",
    "run --method source-video --data shards --run shards": "is the folder of --data; name another folder with --run",
    "run --method mine.toml --data shards": "mine.toml",
    "demo --run text.txt": "text.txt",
    "score --videos nowhere --pairs p.csv --data shards --method-name a": "no folder nowhere; name it with --videos",
    "score --videos videos --pairs p.csv --data shards --method-name a": "name it with --pairs",
    "score --videos videos --pairs text.txt --data shards --method-name a": "text.txt",
    "score --videos videos --pairs p.csv --data shards --method-name Mine": "--method-name",
    "score --videos videos --pairs p.csv --data shards --method-name cmet": "another --method-name",
    "score --videos videos --pairs p.csv --data shards --method-name a --pattern x.mp4": "--pattern",
    "score --videos videos --pairs p.csv --data shards --method-name a --metrics psnrr": "did you mean psnr",
    "measure nowhere": "nowhere does not exist",
    "measure videos nowhere": "nowhere does not exist",
    "measure videos --metrics psnrr": "did you mean psnr",
    "measure text.txt": "text.txt has the suffix of a text file",
    "measure videos/a.mp4 text.txt": "a list of videos that ends in .csv",
    "measure videos --audio text.txt": "text.txt has the suffix of a text file",
    "measure videos --protocol vicoo": "did you mean vico",
    "protocols vicoo": "did you mean vico",
    "measure nowhere --metrics psnrr": "did you mean psnr",
    "measure nowhere --name a/b": "--name: ",
    "measure nowhere --revision =1": "--revision: ",
    "measure nowhere --metrics lse_c:lm --metrics lse_c:corpus": "score them in two runs",
    "measure videos --run videos": "is inside a folder of videos",
    "measure videos --run shards": "shards is a shard set; name another folder with --run",
    "measure videos nowhere --run kept": "nowhere does not exist",
    "measure videos --rate 30": "'30' is not one of",
    "measure videos --metrics psnr --profile paper": "--profile",
    "measure videos --protocol vicco": "did you mean vico",
    "measure videos --protocol nowhere.toml": "the protocol nowhere.toml is absent",
    "measure videos --protocol vico --rate 25": "--protocol vico sets --rate: leave --rate out",
    "measure videos --protocol vico": "give TARGET",
    "protocols vicco": "did you mean vico",
    "metrics psnrr": "did you mean psnr",
    "metrics psnr --format xml": "'xml' is not one of",
    "cite": "KEY is missing; for example: cmet-eval cite",
    "cite psnrr": "did you mean psnr",
    "leaderboard": "no run below work/ here; name its folder with --run",
    "leaderboard --run nowhere": "no folder nowhere",
    "leaderboard --run videos": "no result rows under videos",
    "leaderboard --run run --bands nowhere.csv": "no file nowhere.csv; name it with --bands",
    "compare one two --run nowhere": "no folder nowhere",
    "compare one two --run run --videos one=nowhere": "--videos one=nowhere: no folder nowhere",
    "compare one two --run run --data nowhere": "no folder nowhere; name a shard set with --data",
    "verify --run nowhere": "no folder nowhere",
    "verify --run run --share 0": "--share: it should be more than 0",
    "verify --run run --videos nowhere": "no folder nowhere; name it with --videos",
    "verify --run run --videos videos --pairs nowhere.csv": "no file nowhere.csv; name it with --pairs",
    "report aitv": "no run below work/ here",
    "report fid --run run --data nowhere": "no folder nowhere; name a shard set with --data",
    "study analyse": "--answers",
    "study analyse --answers videos --method a": "--method is not an option of `cmet-eval study analyse`",
    "study make --method a --method b --answers videos": "--answers is not an option of `cmet-eval study make`",
    "report confusion --split test": "--split is not an option of `cmet-eval report confusion`",
    "study analyse --answers nowhere": "no folder nowhere; name it with --answers",
    "study make --run nowhere --method a --method b": "no folder nowhere",
    "calibrate": "give --data, or the --values",
    "calibrate --values text.txt --metrics psnr": "--metrics is not an option of `cmet-eval calibrate --values`",
    "calibrate --data nowhere": "no folder nowhere; name a shard set with --data",
    "calibrate --values nowhere.csv": "no file nowhere.csv; name it with --values",
    "calibrate --data shards --evaluators nowhere": "no folder nowhere; name it with --evaluators",
    "inspect nowhere": "no folder nowhere; name a shard set",
    "inspect run": "name run/shards",
    "pairs neutral-base --data nowhere -o p.csv": "no folder nowhere; name a shard set with --data",
    "pairs neutral-base --data shards -o p.txt": "should end in .parquet or .csv",
    "train cmet --data nowhere": "no folder nowhere; name a shard set with --data",
    "preprocess clips nowhere x": "no folder nowhere; name it with ROOT",
    "preprocess clips videos videos": "write shards outside the dataset",
    "preprocess clips videos x --config nowhere.toml": "no file nowhere.toml; name it with --config",
}


@pytest.fixture
def place(tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: see `USES`."""
    (tmp_path / "run" / "results").mkdir(parents=True)
    (tmp_path / "run" / "videos").mkdir()
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"no video")
    (tmp_path / "text.txt").write_text("text")
    rules = get_setting("reconstruction")
    write_pairs(draw_from_shards(ShardSet(shards), rules, Draw(max_pairs=2, seeds=1)), tmp_path / "rc.csv")
    for link in (tmp_path / "shards", tmp_path / "run" / "shards"):
        link.symlink_to(shards)
    monkeypatch.chdir(tmp_path)
    for name in ("CMET_EVAL_WEIGHTS", "CMET_EVAL_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize("words", USES)
def test_a_wrong_use_is_one_line_and_writes_nothing(words: str, place: Path, monkeypatch, capsys) -> None:
    before = sorted(place.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["cmet-eval", *words.split()])
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr()
    assert end.value.code == 2, said.err
    assert said.err.startswith("cmet-eval: ") and said.err.count("\n") == 1 and not said.out, said
    assert USES[words] in said.err and len(said.err) < 700
    assert sorted(place.rglob("*")) == before
