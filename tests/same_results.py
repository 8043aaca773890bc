"""Compares two output folders of the same command, for example of `make demo` before and after a change of the code.

    python -m tests.same_results BEFORE AFTER

Every file is compared by its bytes, after the parts that name code or time are left out (`NEUTRAL` and `TIMES`).
Parquet files whose bytes differ are compared by schema and rows. Prints one line for each kind of file with the number
of equal files, one line for each difference, and exits with 1 where there is any.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# The top folders' packages were renamed once: `baselines.trivial` became `cmet_baselines.trivial`.
NEUTRAL = ((re.compile(r"\bcmet_(baselines|leaderboards|metrics|pipelines)\b"), r"\1"),)
# Fields of JSON and columns of tables that hold a time, a speed, a commit or versions, and the digest of such a file.
TIMES = {
    "seconds",
    "timing",
    "commit",
    "samples_per_second",
    "waiting_share",
    "versions",
    "hardware",
    "sha256",
    "card_sha256",
}  # the last one is the digest of a card with times
NOT_RESULTS = ("corpus/_", ".lock", ".log", "records/")  # records hold times; videos and scores are compared themselves


def neutral(text: str) -> str:
    """The text without the names that a move of code changes."""
    for pattern, name in NEUTRAL:
        text = pattern.sub(name, text)
    return text


def without_times(value: Any) -> Any:
    """A JSON value without fields that hold a time, a commit or versions."""
    if isinstance(value, dict):
        return {key: without_times(part) for key, part in value.items() if key not in TIMES}
    return [without_times(part) for part in value] if isinstance(value, list) else value


def table_without_times(text: str) -> list[dict[str, str]]:
    """The rows of a CSV without the columns that hold a time or a speed."""
    return [{key: cell for key, cell in row.items() if key not in TIMES} for row in csv.DictReader(text.splitlines())]


def reword(text: bytes, reworded: Sequence[tuple[str, str]]) -> bytes:
    """The text with each old wording replaced by the new one, in plain text and in HTML."""
    for old, new in reworded:
        for apostrophe in ("'", "&#39;"):
            text = text.replace(old.replace("'", apostrophe).encode(), new.replace("'", apostrophe).encode())
    return text


def difference(before: Path, after: Path, reworded: Sequence[tuple[str, str]] = ()) -> str:
    """What differs between two files; empty where they are the same."""
    a, b = before.read_bytes(), after.read_bytes()
    if before.suffix in (".md", ".html", ".txt"):
        a = reword(a, reworded)
    if a == b:
        return ""
    if before.suffix == ".parquet":
        return parquet_difference(before, after)
    if before.suffix == ".json":
        x, y = (without_times(json.loads(neutral(data.decode()))) for data in (a, b))
        return "" if x == y else "JSON differs"
    if before.suffix == ".csv":
        x, y = (table_without_times(neutral(data.decode())) for data in (a, b))
        wrong = [i for i, (p, q) in enumerate(zip(x, y, strict=False)) if p != q]
        return f"{len(wrong)} rows differ, and {len(x)} rows became {len(y)}" if wrong or len(x) != len(y) else ""
    if before.suffix in (".md", ".html", ".txt"):
        x, y = (neutral(data.decode()).splitlines() for data in (a, b))
        wrong = [i for i, (p, q) in enumerate(zip(x, y, strict=False)) if p != q]
        if not wrong and len(x) == len(y):
            return ""
        return f"{len(wrong)} lines differ, first {wrong[0] + 1 if wrong else min(len(x), len(y)) + 1}"
    return f"bytes differ ({len(a)} and {len(b)})"


def parquet_difference(before: Path, after: Path) -> str:
    """What differs between two Parquet files in schema, metadata or rows."""
    import pyarrow.parquet as pq

    a, b = pq.read_table(before), pq.read_table(after)
    if a.schema.remove_metadata() != b.schema.remove_metadata():
        return "columns differ"
    a, b = (table.select([name for name in table.column_names if name not in TIMES]) for table in (a, b))
    if not a.equals(b):
        return "rows differ: " + ", ".join(name for name in a.column_names if not a[name].equals(b[name]))
    x, y = ({k: neutral(v.decode()) for k, v in (t.schema.metadata or {}).items()} for t in (a, b))
    wrong = sorted(k.decode() for k in x.keys() | y.keys() if k != b"sha256" and x.get(k) != y.get(k))
    return f"metadata differs: {', '.join(wrong)}" if wrong else ""


def files(folder: Path) -> dict[str, Path]:
    """Every file that holds a result, by its path below the folder."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in found}
    return {name: path for name, path in named.items() if not any(part in name for part in NOT_RESULTS)}


def main() -> int:
    """Compares the two folders of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.same_results", description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--expect", action="append", default=[], help="beginning of paths that may differ")
    parser.add_argument("--reworded", type=Path, help="JSON list of [before, after]: texts of pages that were reworded")
    args = parser.parse_args()
    before, after = files(args.before), files(args.after)
    reworded = json.loads(args.reworded.read_text()) if args.reworded else ()
    same: Counter[str] = Counter()
    wrong = [f"{name}: only in {args.before}" for name in before if name not in after]
    wrong += [f"{name}: only in {args.after}" for name in after if name not in before]
    for name in before.keys() & after.keys():
        if found := difference(before[name], after[name], reworded):
            wrong.append(f"{name}: {found}")
        else:
            same[name.partition("/")[0]] += 1
    for kind, count in sorted(same.items()):
        print(f"{kind}: {count} files are the same")
    wrong = [line for line in sorted(wrong) if not line.startswith(tuple(args.expect) or ("\0",))]
    print("\n".join(wrong) if wrong else "no difference")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
