"""Print the BibTeX of metrics, for the bibliography of a paper. A paper that several metrics come from is printed once.

Examples:
    cmet-eval cite psnr ssim:wang2004
    cmet-eval cite m_lmd:eat
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cmet_eval import completion
from cmet_metrics.registry import get_metric
from talking_face.pretrained.model_files import ModelFiles


def cite(
    keys: Annotated[
        list[str],
        typer.Argument(metavar="KEY", autocompletion=completion.metrics, help="metrics of `cmet-eval metrics`"),
    ],
) -> None:
    files = ModelFiles.from_environment()
    chosen = [get_metric(key, files) for key in keys]
    print("\n\n".join(dict.fromkeys(metric.bibtex.strip() for metric in chosen if metric.bibtex)))
    for metric in chosen:
        if not metric.bibtex:
            print(f"{metric.key}: no paper; source: {metric.source or 'this suite'}", file=sys.stderr)
