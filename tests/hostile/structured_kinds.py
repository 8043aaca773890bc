"""The kinds of files that `tests.hostile.structured` damages, and the commands that read them."""

from __future__ import annotations

from dataclasses import dataclass

from tests.hostile.world import DATA, METRIC

RUN = ("--data", DATA, "--out", "out", "--max-pairs", "1", "--seeds", "1", "--workers", "1", "--quiet")
SCORED = ("--videos", "made/neutral-base", "--data", DATA, "--method-name", "mine", "--metrics", METRIC, "--quiet")
PREPARE = ("--workers", "0", "--allow-failures", "1", "--quiet")


@dataclass(frozen=True)
class Kind:
    """A kind of file and the commands that read it.

    Attributes:
        files: glob patterns of the files; one matching file is damaged.
        commands: one is chosen; the word `FILE` is the path of the damaged file.
        needs: the files and folders of the example that the commands read.
        strict: True if the file is written by hand, so that an unknown key or an impossible number must be refused.
        weight: how often the kind is chosen.
    """

    name: str
    files: tuple[str, ...]
    commands: tuple[tuple[str, ...], ...]
    needs: tuple[str, ...] = ()
    strict: bool = False
    weight: float = 1.0


KINDS = (
    Kind("setting", ("setting.toml",), (("pairs", "FILE", "--data", DATA, "-o", "out/p.parquet"),), (DATA,), True, 3),
    Kind(
        "setting of a run",
        ("setting.toml",),
        (("run", "--setting", "FILE", "--method", "static-reference", "--metrics", METRIC, *RUN),),
        (DATA,),
        True,
        0.5,
    ),
    Kind(
        "rows of a setting",
        ("rows.csv", "listed.toml"),
        (("pairs", "listed.toml", "--data", DATA, "-o", "out/p.parquet"),),
        (DATA, "listed.toml", "rows.csv"),
    ),
    Kind(
        "method",
        ("program.toml", "class.toml", "finished.toml"),
        (("baselines", "show", "FILE"),),
        ("sway.py", "made"),
        True,
        3,
    ),
    Kind(
        "method of a run",
        ("program.toml", "class.toml", "finished.toml"),
        (("run", "--method", "FILE", "--setting", "neutral-base", "--metrics", METRIC, *RUN),),
        (DATA, "sway.py", "made"),
        True,
        0.5,
    ),
    Kind("class of a method", ("sway.py",), (("baselines", "show", "sway:Sway"),), (), False, 0.5),
    Kind(
        "metric of a user",
        ("own_metric.py",),
        (("leaderboard", "--run", "run/results", "--out", "out", "--metrics", "own_metric:Own"),),
        ("run",),
        False,
        0.5,
    ),
    Kind(
        "settings of preprocessing",
        ("config.toml",),
        (("preprocess", "clips", "media", "out", "--config", "FILE", *PREPARE),),
        ("media",),
        True,
        2,
    ),
    Kind(
        "labels",
        ("labels.csv",),
        (("preprocess", "clips", "media", "out", "--labels", "FILE", *PREPARE),),
        ("media",),
        False,
        2,
    ),
    Kind(
        "list of clips",
        ("list.csv",),
        (("preprocess", "clips", "media", "out", "--clips", "FILE", *PREPARE),),
        ("media",),
        False,
        1.5,
    ),
    Kind(
        "numbering",
        ("numbering.csv",),
        (("preprocess", "mead", "mead", "out", "--numbering", "FILE", *PREPARE),),
        ("mead",),
        False,
        1,
    ),
    Kind(
        "tables of datasets",
        ("meld/train_sent_emo.csv", "crema/processedResults/summaryTable.csv", "lrs2/**/*.txt"),
        (
            ("preprocess", "meld", "meld", "out", *PREPARE),
            ("preprocess", "crema-d", "crema", "out", *PREPARE),
            ("preprocess", "lrs2", "lrs2", "out", *PREPARE),
        ),
        ("meld", "crema", "lrs2"),
        False,
        2,
    ),
    Kind(
        "settings of a training",
        ("cmet.toml",),
        (("train", "cmet", "--data", DATA, "--config", "FILE", "--out", "out", "--quiet"),),
        (DATA,),
        True,
        1,
    ),
    Kind(
        "settings of stages",
        ("cem-net.toml",),
        (
            (
                "train",
                "cem-net",
                "--data",
                DATA,
                "--config",
                "FILE",
                "--stage",
                "audio2mouth",
                "--out",
                "out",
                "--quiet",
            ),
        ),
        (DATA,),
        True,
        1,
    ),
    Kind(
        "pair list",
        ("pairs.parquet", "pairs.csv"),
        (("score", "--pairs", "FILE", "--out", "out", *SCORED),),
        (DATA, "made"),
        False,
        2,
    ),
    Kind(
        "result rows",
        ("run/results/**/*.parquet",),
        (
            ("leaderboard", "--run", "run/results", "--out", "out"),
            ("leaderboard", "--run", "run/results", "--out", "out", "--gallery", "0"),
            ("compare", "static-reference", "source-video", "--run", "run/results", "--out", "out", "--data", DATA),
            (
                "verify",
                "--run",
                "run/results",
                "--videos",
                "run/videos",
                "--data",
                DATA,
                "--share",
                "1",
                "--workers",
                "0",
            ),
            ("report", "confusion", "--run", "run", "--out", "out"),
            ("report", "identity-deterioration", "--run", "run", "--out", "out"),
        ),
        ("run", DATA),
        False,
        4,
    ),
    Kind(
        "records of a run",
        ("run/records/**/*.json", "run/scores/**/*.json", "run/pairs/*.parquet"),
        (
            ("report", "aitv", "--run", "run", "--out", "out"),
            (
                "verify",
                "--run",
                "run/results",
                "--videos",
                "run/videos",
                "--data",
                DATA,
                "--share",
                "1",
                "--workers",
                "0",
            ),
            ("leaderboard", "--run", "run/results", "--out", "out"),
        ),
        ("run", DATA),
        False,
        1.5,
    ),
    Kind(
        "records, resumed",
        ("run/records/**/*.json", "run/scores/**/*.json"),
        (
            (
                *("run", "--data", DATA, "--out", "run", "--setting", "neutral-base", "--max-pairs", "2", "--seeds"),
                *("1", "--method", "static-reference", "--metrics", METRIC, "--workers", "1", "--quiet"),
            ),
        ),
        ("run", DATA),
        False,
        0.5,
    ),
    Kind(
        "stored sums of a report",
        ("run/reports/emotion-proportion/**/*.json",),
        (("report", "emotion-proportion", "--run", "run", "--data", DATA, "--clips", "1", "--quiet"),),
        ("run", DATA),
    ),
    Kind(
        "study",
        ("study/key.json", "answers/*.json", "answers/*.json"),
        (("study", "analyse", "--out", "study", "--answers", "answers"),),
        ("study", "answers"),
        False,
        2.5,
    ),
    Kind(
        "noise bands",
        ("calibration/bands.csv",),
        (
            ("leaderboard", "--run", "run/results", "--out", "out", "--gallery", "0", "--bands", "FILE"),
            (
                "compare",
                "static-reference",
                "source-video",
                "--run",
                "run/results",
                "--out",
                "out",
                "--bands",
                "FILE",
            ),
        ),
        ("run", DATA),
        False,
        1.5,
    ),
    Kind("values", ("values.csv",), (("calibrate", "--values", "FILE", "--out", "out"),), (), False, 1.5),
    Kind(
        "shard set",
        (f"{DATA}/*.parquet", f"{DATA}/dataset.json", f"{DATA}/shards/*.parquet", f"{DATA}/dataset.json"),
        (
            ("inspect", DATA, "--clips", "2"),
            ("inspect", DATA, "--clips", "0", "--verify"),
            ("pairs", "neutral-base", "--data", DATA, "-o", "out/p.parquet"),
            ("pairs", "neutral-base", "--data", DATA, "-o", "out/p.parquet", "--export", "out/export", "--quiet"),
        ),
        (DATA,),
        False,
        3,
    ),
    Kind(
        "ledger",
        ("dropped/ledger.parquet", "dropped/dataset.json", "dropped/clips.parquet"),
        (
            ("inspect", "dropped"),
            ("preprocess", "clips", "media", "dropped", *PREPARE),
            ("preprocess", "clips", "media", "dropped", "--retry", *PREPARE),
        ),
        ("media", "dropped"),
        False,
        2,
    ),
    Kind(
        "checkpoint",
        (f"{DATA}/reference/*.safetensors", f"{DATA}/reference/*.json", f"{DATA}/reference/*.csv"),
        (
            ("baselines", "show", "cmet"),
            ("train", "cmet", "--data", DATA, "--config", "cmet.toml", "--quiet"),
            ("run", "--method", "cmet", "--setting", "neutral-base", "--metrics", METRIC, *RUN),
        ),
        (DATA, "cmet.toml"),
        False,
        1,
    ),
    Kind(
        "evaluator",
        (f"{DATA}/evaluators/*.safetensors", f"{DATA}/evaluators/*.json"),
        (("score", "--pairs", "pairs.parquet", "--out", "out", *SCORED, "--metrics", "ea:corpus"),),
        (DATA, "made", "pairs.parquet"),
        False,
        1,
    ),
    Kind("pins of weights", ("cache/weights/pins.json",), (("weights", "verify"),), ("cache",), False, 1),
    Kind("options", ("setting.toml",), (("OPTIONS",),), (DATA, "run", "made", "media", "pairs.parquet"), False, 4),
)

SMALL = "small"  # --kind small: the kinds that need no training and no run, for the tests of the project
SMALL_KINDS = (
    *("setting", "rows of a setting", "method", "settings of preprocessing", "labels", "list of clips", "numbering"),
    *("tables of datasets", "values"),
)

# A command with the option whose value is damaged at its end.
OPTIONS: tuple[tuple[str, ...], ...] = (
    *(("pairs", "neutral-base", "--data", DATA, "-o", "out/p.parquet", f"--{name}") for name in ("max-pairs", "seeds")),
    ("pairs", "neutral-base", "--data", DATA, "-o", "out/p.parquet", "--split"),
    ("pairs", "neutral-base", "--data", DATA, "-o"),
    ("pairs", "neutral-base", "-o", "out/p.parquet", "--data"),
    ("pairs", "--data", DATA, "-o", "out/p.parquet"),
    ("score", "--pairs", "pairs.parquet", "--out", "out", *SCORED, "--pattern"),
    ("score", "--pairs", "pairs.parquet", "--out", "out", *SCORED, "--revision"),
    ("score", "--pairs", "pairs.parquet", "--out", "out", *SCORED, "--title"),
    ("score", "--pairs", "pairs.parquet", "--out", "out", *SCORED, "--method-name"),
    ("score", "--pairs", "pairs.parquet", "--out", "out", *SCORED, "--metrics"),
    ("score", "--pairs", "pairs.parquet", *SCORED, "--out"),
    *(
        ("preprocess", "clips", "media", "out", *PREPARE, f"--{name}")
        for name in ("deadline", "size", "align", "split")
    ),
    *(("preprocess", "clips", "media", "out", *PREPARE, f"--{name}") for name in ("codec", "clips", "labels", "limit")),
    *(("preprocess", "clips", "media", "out", "--workers", "0", f"--{name}") for name in ("allow-failures", "config")),
    ("preprocess", "clips", "media", *PREPARE),
    ("preprocess", "clips", *PREPARE, "out2"),
    ("leaderboard", "--run", "run/results", "--out", "out", "--gallery"),
    ("leaderboard", "--run", "run/results", "--out", "out", "--bands-of"),
    ("leaderboard", "--run", "run/results", "--out"),
    ("leaderboard", "--out", "out", "--run"),
    ("compare", "static-reference", "--run", "run/results", "--out", "out"),
    ("compare", "static-reference", "source-video", "--run", "run/results", "--out", "out", "--videos"),
    ("compare", "static-reference", "source-video", "--run", "run/results", "--out", "out", "--setting"),
    ("verify", "--run", "run/results", "--videos", "run/videos", "--data", DATA, "--workers", "0", "--share"),
    ("verify", "--run", "run/results", "--videos", "run/videos", "--data", DATA, "--workers", "0", "--seed"),
    ("verify", "--run", "run/results", "--videos", "run/videos", "--data", DATA, "--workers", "0", "--method"),
    ("baselines", "show"),
    ("inspect", DATA, "--frames"),
    ("inspect",),
    ("report", "aitv", "--out", "out", "--run"),
    ("report", "emotion-proportion", "--run", "run", "--data", DATA, "--out", "out", "--clips", "1", "--classifier"),
    ("train", "cmet", "--data", DATA, "--out", "out", "--config"),
    ("train", "evaluators", "--out", "out", "--data"),
    ("calibrate", "--out", "out", "--values"),
    ("study", "analyse", "--out", "study", "--answers"),
    ("weights", "verify"),
)
NUMBERS_AS_TEXT = ("nan", "-1", "1e400", "0", "-inf", "1e-320", "9" * 400, "0.5", "1_0", "0x10", "٣", "2147483648")
