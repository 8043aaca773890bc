"""Damages real and drawn clips in many ways and reads them as the suite does; counts what goes wrong.

python -m tests.hostile.media --tries 1000 --seed 1 [--clips FOLDER] [--keep FOLDER]

A try is right if the file gives a reason, or the frames and the sound that its recipe states. It is silently wrong if
the file is accepted with another number of frames, another order, another shape of a face, or sound that is shifted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tests.hostile.media_damage import (
    cut,
    flipped_data,
    flipped_header,
    flipped_moov,
    junk_after,
    lost_middle,
    shuffled,
    swapped_boxes,
    wild_table,
    wrong_box_size,
    zeroed,
)
from tests.hostile.media_known import (
    anti_phase,
    cover,
    edit_list,
    every_format,
    huge_picture,
    in_archive,
    joined_recordings,
    late_sound,
    list_file,
    no_media,
    not_regular,
    one_frame,
    outside_reference,
    pixel_shape,
    quiet,
    size_change,
    sound_change,
    sound_only,
    stated_hours,
    time_gap,
    turned,
    two_pictures,
    two_sounds,
    variable_rate,
    wrong_suffix,
)
from tests.hostile.media_places import (
    REAL,
    Made,
    Place,
    Stock,
)
from tests.hostile.media_reader import Outcome, Reader
from tests.hostile.tally import Tally, report

KINDS: dict[str, Callable[[Place], Made]] = {
    "cut": cut,
    "flipped header": flipped_header,
    "flipped index": flipped_moov,
    "flipped data": flipped_data,
    "zeroed block": zeroed,
    "shuffled blocks": shuffled,
    "lost middle": lost_middle,
    "swapped boxes": swapped_boxes,
    "wrong box size": wrong_box_size,
    "wild index table": wild_table,
    "junk after the end": junk_after,
    "edit list": edit_list,
    "cover picture": cover,
    "two picture tracks": two_pictures,
    "pixel aspect": pixel_shape,
    "turned": turned,
    "anti-phase": anti_phase,
    "nearly silent": quiet,
    "two sound tracks": two_sounds,
    "gap in time": time_gap,
    "two recordings": joined_recordings,
    "size changes": size_change,
    "sound changes": sound_change,
    "list of files": list_file,
    "outside reference": outside_reference,
    "no media": no_media,
    "no regular file": not_regular,
    "huge picture": huge_picture,
    "stated hours": stated_hours,
    "one frame": one_frame,
    "sound only": sound_only,
    "wrong suffix": wrong_suffix,
    "every format": every_format,
    "in an archive": in_archive,
    "variable rate": variable_rate,
    "late sound": late_sound,
}


def run(tries: int, seed: int, real: Sequence[Path], keep: Path | None = None) -> list[Tally]:
    """Makes and reads `tries` files of all kinds in turn. Returns a tally for each kind.

    `keep`: a folder that gets the files of the tries that went wrong.
    """
    tallies = {name: Tally(name) for name in KINDS}
    with tempfile.TemporaryDirectory(prefix="hostile-media-") as temporary, Reader() as reader:
        stock = Stock(Path(temporary), real)
        names = list(KINDS)
        for index in range(tries):
            name = names[index % len(names)]
            rng = np.random.default_rng([seed, index])
            with tempfile.TemporaryDirectory(prefix=f"{index}-", dir=temporary) as folder:
                made = KINDS[name](Place(Path(folder), rng, stock))
                out = reader.read(made.path, made.member)
                wrong = _count(tallies[name], out, made, f"try {index} ({made.path.name})")
                if wrong and keep is not None and made.path.is_file():
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{index}-{made.path.name}").write_bytes(made.path.read_bytes())
    for pid in reader.pids:
        if Path(f"/proc/{pid}").exists():
            next(iter(tallies.values())).fault("orphans", f"the reader {pid} is alive after the end")
    return list(tallies.values())


def _count(tally: Tally, out: Outcome, made: Made, example: str) -> bool:
    tally.tried += 1
    before = len(tally.examples)
    if out.hung:
        tally.fault("hung", example)
    elif out.crashed:
        tally.fault("crashed", f"{example}: {out.crashed}")
    elif out.errors:
        tally.fault("traceback", f"{example}: {'; '.join(out.errors)}")
    elif wrong := made.judge(out):
        tally.fault("silently_wrong", f"{example}: {wrong}")
    return len(tally.examples) > before


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clips", type=Path, default=REAL, help="folder of real clips; drawn clips are used if absent")
    parser.add_argument("--keep", type=Path, help="folder for the files of tries that went wrong")
    options = parser.parse_args()
    real = sorted(path for path in options.clips.glob("*") if path.suffix in (".mpg", ".mp4"))[:3]
    return report(run(options.tries, options.seed, real, options.keep))


if __name__ == "__main__":
    sys.exit(main())
