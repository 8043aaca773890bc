"""The whole pipeline through its command: kills, 1 and 2 workers, other settings, bad input, a full disk."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from cmet_pipelines.preprocess import PreprocessSummary, Selection, preprocess
from cmet_pipelines.processing import ProcessingSettings
from cmet_pipelines.shards import ShardSet
from talking_face.execution.options import RunOptions
from talking_face.files import STRAY
from talking_face.media import read_audio, read_frames, write_video
from talking_face.reasons import UserError
from talking_face.sealed import Damaged, write_sealed_json
from tests.hostile.tally import listen
from tests.pipelines.run_options import QUIET

COMMAND = [sys.executable, "-m", "cmet_eval.cli", "preprocess"]


@pytest.fixture(scope="module")
def undisturbed(small_mead: Path, tmp_path_factory: pytest.TempPathFactory) -> PreprocessSummary:
    return preprocess(
        "mead", small_mead, tmp_path_factory.mktemp("shards") / "out", run=RunOptions(workers=1, quiet=True)
    )


def test_every_file_ends_in_the_ledger_and_every_clip_in_a_shard(
    small_mead: Path, undisturbed: PreprocessSummary
) -> None:
    shards = ShardSet(undisturbed.out)
    assert undisturbed.kept == len(shards) == 8 and undisturbed.dropped == 0
    files = {p.relative_to(small_mead).as_posix() for p in small_mead.rglob("*") if p.is_file()}
    accounted = set(shards.ledger["source"]) | set(shards.clips["audio_source"].dropna())
    assert files == accounted
    assert set(shards.clips["split"]) == {"train"} and shards.card["split_preset"] == "embedded"
    assert set(shards.clips["sentence_id"]) == {"s01", "s02", "s03", "s04"}  # this corpus numbers by sentence
    assert list(shards.clips["clip_id"]) == sorted(shards.clips["clip_id"])
    assert not list(undisturbed.out.rglob(STRAY)) and not (undisturbed.out / ".staging").exists()


def test_the_card_states_the_origin_of_the_clips_and_cannot_contradict_their_names(
    undisturbed: PreprocessSummary, tmp_path: Path
) -> None:
    shards = ShardSet(undisturbed.out)
    assert shards.card["origin"] == shards.origin == "drawn"
    shutil.copy(undisturbed.out / "clips.parquet", tmp_path)
    for stored, found in (("recorded", None), ("unknown", None), (None, "drawn")):
        card = {name: value for name, value in shards.card.items() if name not in ("origin", "sha256")}
        write_sealed_json(tmp_path / "dataset.json", card | ({} if stored is None else {"origin": stored}))
        if found is None:
            with pytest.raises(Damaged, match=f"its origin is {stored}, but the speakers .* say drawn"):
                ShardSet(tmp_path).origin  # noqa: B018 (a property that raises)
        else:
            assert ShardSet(tmp_path).origin == found  # an older set


def test_columns_hold_what_the_source_shows(small_mead: Path, undisturbed: PreprocessSummary) -> None:
    shards = ShardSet(undisturbed.out)
    row = shards.clips.iloc[0]
    clip_id, n = row["clip_id"], int(row["n_frames"])
    source = read_frames(small_mead / row["source"])
    frames = shards.frames(clip_id)
    assert n == len(source) == 20 and frames.shape == (n, 256, 256, 3) and frames.dtype == np.uint8
    assert np.array_equal(shards.frames(clip_id, [7, 3]), frames[[7, 3]])
    audio = shards.audio(clip_id)
    original = read_audio(small_mead / row["audio_source"])
    assert audio.dtype == np.int16 and len(audio) == n * 640
    common = min(len(audio), len(original))
    assert np.array_equal(audio[:common], original[:common]) and not audio[common:].any()
    assert row["audio_surplus"] == len(original) - len(audio)
    assert shards.landmarks(clip_id).shape == shards.landmarks(clip_id, smoothed=True).shape == (n, 478, 3)
    assert shards.blendshapes(clip_id).shape == (n, 52) and shards.valid(clip_id).all()
    # A crop pixel's colour is the source's at the place that the stored transform names.
    transform = shards.crop_transform(clip_id)[5]
    x, y = 128.5, 150.5
    sx, sy = np.linalg.solve(transform[:, :2], np.array([x, y]) - transform[:, 2])
    patch = source[5, round(sy) - 3 : round(sy) + 3, round(sx) - 3 : round(sx) + 3].mean((0, 1))
    assert np.abs(frames[5, 148:153, 126:131].mean((0, 1)) - patch).max() < 12
    assert all(shards.verify(clip_id) for clip_id in shards.clips["clip_id"])


def test_workers_do_not_change_a_byte(small_mead: Path, undisturbed: PreprocessSummary, tmp_path: Path) -> None:
    again = preprocess("mead", small_mead, tmp_path / "two", run=RunOptions(workers=2, quiet=True))
    assert again.digest == undisturbed.digest
    assert _shard_bytes(again.out) == _shard_bytes(undisturbed.out)


def test_a_cluster_that_loses_a_worker_half_way(
    small_mead: Path, undisturbed: PreprocessSummary, tmp_path: Path
) -> None:
    """A scheduler and two workers started as a cluster's user starts them, each in its own process."""
    address_file = tmp_path / "scheduler.json"
    python = [sys.executable, "-m"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    options = ["--scheduler-file", str(address_file), "--no-dashboard"]
    processes = [subprocess.Popen([*python, "distributed.cli.dask_scheduler", *options, "--port", "0"], **quiet)]
    try:
        for name in ("a", "b"):
            worker = [*python, "distributed.cli.dask_worker", *options, "--nthreads", "1", "--no-nanny", "--name", name]
            processes.append(subprocess.Popen([*worker, "--local-directory", str(tmp_path / name)], **quiet))
        while not (address_file.is_file() and address_file.read_text().strip()):
            assert processes[0].poll() is None
            time.sleep(0.05)
        address = json.loads(address_file.read_text())["address"]
        out = tmp_path / "out"
        time.sleep(2)  # both workers have joined
        run = subprocess.Popen(
            [*COMMAND, "mead", str(small_mead), str(out), "--scheduler", address, "--quiet"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        while run.poll() is None and _staged(out) < 3:
            time.sleep(0.02)
        assert run.poll() is None, "it was done before a worker could be lost"
        os.killpg(processes[1].pid, signal.SIGKILL)
        printed, _ = run.communicate(timeout=120)
        assert run.returncode == 0 and undisturbed.digest in printed, printed
        assert _shard_bytes(out) == _shard_bytes(undisturbed.out)
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_killed_at_any_moment_it_ends_the_same(
    small_mead: Path, undisturbed: PreprocessSummary, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    rng = random.Random(0)
    kills = 0
    for whole_group in (True, False, True, False, True):
        run = subprocess.Popen(
            [*COMMAND, "mead", str(small_mead), str(out), "--quiet"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        # From before the workers start to after the last clip of what is left.
        before = _staged(out)
        deadline = time.monotonic() + rng.uniform(0.5, 4.0)
        while run.poll() is None and time.monotonic() < deadline and _staged(out) < before + 2:
            time.sleep(0.01)
        if run.poll() is None:
            kills += 1
            (os.killpg if whole_group else os.kill)(run.pid, signal.SIGKILL)
        run.wait()
    assert kills >= 3
    for _ in range(100):  # children of a run that lost only its parent end by themselves
        if not _group_alive(run.pid):
            break
        time.sleep(0.1)
    done = subprocess.run([*COMMAND, "mead", str(small_mead), str(out)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert undisturbed.digest in done.stdout
    assert _shard_bytes(out) == _shard_bytes(undisturbed.out)
    assert not list(out.rglob(STRAY))


def test_a_second_run_does_nothing_and_says_so(small_mead: Path, undisturbed: PreprocessSummary) -> None:
    stamps = _stamps(undisturbed.out)
    command = [*COMMAND, "mead", str(small_mead), str(undisturbed.out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "nothing to do" in done.stdout and undisturbed.digest in done.stdout
    assert stamps == _stamps(undisturbed.out)


def _stamps(out: Path) -> dict[Path, int]:
    """The time of the last change of every file, except the lock and the log."""
    kept = (path for path in out.rglob("*") if path.name != ".lock" and "logs" not in path.parts)
    return {path: path.stat().st_mtime_ns for path in kept}


def test_other_settings_into_the_same_folder_are_refused(small_mead: Path, undisturbed: PreprocessSummary) -> None:
    with pytest.raises(UserError, match=r"size: 256 there, 128 asked for"):
        preprocess("mead", small_mead, undisturbed.out, ProcessingSettings(size=128), run=QUIET)
    # The deadline does not change the content.
    same = preprocess("mead", small_mead, undisturbed.out, ProcessingSettings(deadline_s=7), run=QUIET)
    assert same.computed == 0


def test_new_lost_and_changed_clips_are_followed(
    small_mead: Path, undisturbed: PreprocessSummary, tmp_path: Path
) -> None:
    root, out = tmp_path / "mead", tmp_path / "out"
    shutil.copytree(small_mead, root)
    videos = sorted((root / "M901" / "video" / "front").rglob("*.mp4"))
    held_back = videos[2].read_bytes()
    videos[2].unlink()
    assert preprocess("mead", root, out, run=QUIET).computed == 7
    videos[2].write_bytes(held_back)
    grown = preprocess("mead", root, out, run=QUIET)
    assert grown.computed == 1 and grown.digest == undisturbed.digest
    assert _shard_bytes(out) == _shard_bytes(undisturbed.out)
    videos[0].write_bytes(videos[1].read_bytes())
    changed = preprocess("mead", root, out, run=QUIET)
    assert changed.computed == 1 and changed.digest != undisturbed.digest
    # Finished clips vanish only when they may.
    for less in (Selection(limit=3), Selection()):
        if less.limit is None:
            videos[1].unlink()
        before = _shard_bytes(out)
        with pytest.raises(UserError, match="--prune"):
            preprocess("mead", root, out, run=QUIET, selection=less)
        assert _shard_bytes(out) == before
    pruned = preprocess("mead", root, out, run=QUIET, selection=Selection(prune=True))
    assert (pruned.removed, pruned.kept, pruned.computed) == (1, 7, 0)


def test_when_every_clip_crashes_alike_the_run_stops_and_loses_nothing(
    small_mead: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no such library")

    monkeypatch.setattr("cmet_pipelines.process_clip.track_face", broken)
    monkeypatch.setattr("cmet_pipelines.preprocess.MOST_EQUAL_CRASHES", 4)
    with pytest.raises(UserError, match="no such library"):
        preprocess("mead", small_mead, tmp_path / "out", run=QUIET)
    monkeypatch.undo()
    assert preprocess("mead", small_mead, tmp_path / "out", run=QUIET).kept == 8


def test_a_run_that_never_began_does_not_hold_the_folder(small_mead: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="cannot reach the Dask scheduler"):
        preprocess("mead", small_mead, out, run=RunOptions(scheduler="tcp://127.0.0.1:9", quiet=True))
    other = ProcessingSettings(size=128)
    assert preprocess("mead", small_mead, out, other, run=QUIET, selection=Selection(limit=1)).kept == 1


@pytest.fixture(scope="module")
def bad_root(small_mead: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One good clip and one of each kind of bad input."""
    root = tmp_path_factory.mktemp("bad")
    good = sorted(small_mead.rglob("*.mp4"))[0]
    shutil.copy(good, root / "good.mp4")
    (root / "empty.mp4").write_bytes(b"")
    (root / "truncated.mp4").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (root / "text.mp4").write_text("this is no film\n" * 50)
    (root / "pointer.mp4").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    (root / "notes.txt").write_text("hello\n")
    frames, audio = read_frames(good), read_audio(good)
    write_video(root / "silent.mp4", frames)
    write_video(root / "one_frame.mp4", frames[:1], audio=audio[:640])
    write_video(root / "no_face.mp4", np.full_like(frames, 90), audio=audio)
    with av.open(str(root / "sound_only.mp4"), "w") as file:
        stream = file.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(audio[:4096].reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = 16000
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    # A cut in the middle of the picture data of a file whose index is in front.
    data = (root / "silent.mp4").read_bytes()
    (root / "cut_behind_index.mp4").write_bytes(data[: len(data) * 2 // 3])
    return root


def test_bad_input_gives_rows_with_words(bad_root: Path, tmp_path: Path) -> None:
    command = [*COMMAND, "clips", str(bad_root), str(tmp_path / "out"), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1  # most of the clips were dropped
    assert "Traceback" not in done.stdout + done.stderr
    ledger = ShardSet(tmp_path / "out").ledger.set_index("source")
    assert {name: (row["status"], row["reason"]) for name, row in ledger.iterrows()} == {
        "good.mp4": ("kept", ""),
        "empty.mp4": ("dropped", "empty-file"),
        "truncated.mp4": ("dropped", "truncated"),
        "cut_behind_index.mp4": ("dropped", "no-audio"),
        "text.mp4": ("dropped", "not-media"),
        "pointer.mp4": ("dropped", "lfs-pointer"),
        "silent.mp4": ("dropped", "no-audio"),
        "one_frame.mp4": ("dropped", "too-short"),
        "no_face.mp4": ("dropped", "no-face"),
        "sound_only.mp4": ("dropped", "no-video"),
        "notes.txt": ("skipped", "not-a-clip"),
    }
    for _, row in ledger[ledger["status"] == "dropped"].iterrows():
        assert 20 < len(row["detail"]) < 300 and "\n" not in row["detail"] and row["stage"]
    allowed = subprocess.run([*command, "--allow-failures", "1"], capture_output=True, text=True, timeout=120)
    assert allowed.returncode == 0 and "nothing to do" in allowed.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["clips", "{tmp}/absent", "{tmp}/out"], "no folder"),
        (["clip", "{tmp}", "{tmp}/out"], "did you mean clips"),
        (["clips", "{bad}", "{tmp}/out", "--codec", "jpeg"], "unknown frame codec"),
        (["clips", "{bad}", "{bad}/out"], "outside the dataset"),
        (["mead", "{bad}", "{tmp}/out"], "no mead clip"),
        (["clips", "{bad}", "{tmp}/out", "--scheduler", "tcp://127.0.0.1:9"], "no Dask scheduler answers"),
    ],
)
def test_wrong_use_is_told_in_a_line(arguments: list[str], words: str, bad_root: Path, tmp_path: Path) -> None:
    words_given = [argument.format(tmp=tmp_path, bad=bad_root) for argument in arguments]
    done = subprocess.run([*COMMAND, *words_given], capture_output=True, text=True, timeout=90)
    assert done.returncode == 2
    assert words in done.stderr and "Traceback" not in done.stderr and done.stderr.count("\n") <= 3


def test_a_full_disk_stops_with_a_line_and_a_rerun_finishes(
    small_mead: Path, undisturbed: PreprocessSummary, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        command = [*COMMAND, "mead", str(small_mead), str(disk / "out"), "--quiet"]
        full = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert full.returncode == 1 and "full" in full.stderr and "Traceback" not in full.stderr
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 and undisturbed.digest in done.stdout
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def _shard_bytes(out: Path) -> dict[str, bytes]:
    card = json.loads((out / "dataset.json").read_text())
    assert card["complete"]
    return {path.name: path.read_bytes() for path in sorted((out / "shards").iterdir())}


def _staged(out: Path) -> int:
    return len(list((out / ".staging").glob("*/[!.]*.json")))


def _group_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except OSError:
        return False
    return True


def test_ctrl_c_ends_with_one_line(small_mead: Path, tmp_path: Path) -> None:
    root = tmp_path / "mead"
    for name in ("M901", "M902", "M903", "M904"):  # enough of them to be interrupted on a busy machine
        shutil.copytree(small_mead / "M901", root / name)
    command = [*COMMAND, "mead", str(root), str(tmp_path / "out"), "--quiet"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    run = subprocess.Popen(command, text=True, start_new_session=True, preexec_fn=listen, **pipes)
    deadline = time.monotonic() + 60
    while not _staged(tmp_path / "out") and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to all of them
    printed, _ = run.communicate(timeout=30)
    assert run.returncode == 130 and printed.count("\n") == 1 and "the same command resumes" in printed
