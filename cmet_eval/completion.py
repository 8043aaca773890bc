"""Lists the names that a shell offers for the value of an option: methods, metrics, settings, datasets, weights.

A shell calls `cmet-eval` for each press of the tab key. The functions import no network and no table library, so that
the names come within about a second.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import typer

from cmet_eval.run_folder import RESULTS, newest_run


def one_of(*names: str) -> Callable[[], list[str]]:
    """A function that offers these names."""
    return lambda: list(names)


def methods() -> list[tuple[str, str]]:
    """The methods of the catalogue that can be run, with their summaries."""
    from cmet_baselines.registry import catalogue

    return [(entry.name, entry.summary) for entry in catalogue().values() if entry.kind != "published"]


def all_methods() -> list[tuple[str, str]]:
    """All methods of the catalogue, with their summaries."""
    from cmet_baselines.registry import catalogue

    return [(entry.name, entry.summary) for entry in catalogue().values()]


def metrics() -> list[tuple[str, str]]:
    """The keys of all metrics, with their summaries."""
    from cmet_metrics.registry import METRICS

    return [(metric.key, metric.summary) for metric in METRICS]


def protocols() -> list[tuple[str, str]]:
    """The protocols of `cmet-eval measure`, with their titles."""
    from cmet_eval.measuring.protocol_files import get_protocol, protocol_names

    return [(name, get_protocol(name).title) for name in protocol_names()]


def citable() -> list[tuple[str, str]]:
    """What `cmet-eval cite` knows: metrics, methods, datasets and the suite."""
    return [*metrics(), *all_methods(), *((name, "a dataset") for name in datasets()), ("cmet-eval", "this suite")]


def settings() -> list[str]:
    """The settings that the suite contains."""
    from cmet_eval.protocol.setting import setting_names

    return list(setting_names())


def datasets() -> list[str]:
    """The datasets that have a reader."""
    from cmet_pipelines.readers import READERS

    return sorted(READERS)


def layouts() -> list[str]:
    """The layouts of the embedded corpus."""
    from embedded_corpus.layouts import LAYOUTS

    return list(LAYOUTS)


def weights() -> list[tuple[str, str]]:
    """The pretrained files of the registry, with what they are."""
    from talking_face.pretrained.store import registry

    return [(entry.name, entry.about) for entry in registry().values()]


def methods_of_run(ctx: typer.Context) -> list[str]:
    """The methods that have result rows in the run that the command line names, or in the newest run."""
    given = ctx.params.get("run") or ctx.params.get("results")
    run = Path(str(given)) if given else newest_run()
    files = [] if run is None else (run / RESULTS).rglob("*@*.parquet")
    return sorted({unquote(file.name.partition("@")[0]) for file in files})
