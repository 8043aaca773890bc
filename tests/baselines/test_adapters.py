"""Tests the adapters: inputs of outside methods, conversion of their output, and the reason of each failure."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from cmet_baselines.adapters import command
from cmet_baselines.adapters.command import CommandRun
from cmet_baselines.adapters.conform import fit_size
from cmet_baselines.adapters.environment import method_environment
from cmet_baselines.entry import read_entry
from cmet_baselines.method import Case
from cmet_baselines.registry import describe, get_method
from talking_face.media.reading import read_frames
from talking_face.media.writing import write_video
from talking_face.reasons import ClipError, Reason, UserError
from tests.baselines.test_methods import make_case

SEES = frozenset({"reference-frames", "driving-audio", "emotion-label"})
ENTRY = """
name = "mine"
title = "Mine"
summary = "A script."
kind = "command"
revision = "1"
licence = "MIT"
sees = ["reference-frames", "driving-audio", "emotion-label"]
[command]
command = ["{python}", "{script}", "{{reference_image}}", "{{driving_audio}}", "{{target_emotion}}", "{{output}}"]
deadline_s = {deadline}
length = "{length}"
emotions = {{happy = "hap"}}
"""


def command_method(folder: Path, script: str, deadline: float = 60.0, length: str = "as-is") -> Path:
    (folder / "script.py").write_text("import sys\nface, sound, emotion, output = sys.argv[1:]\n" + script)
    path = folder / "mine.toml"
    path.write_text(ENTRY.format(python=sys.executable, script=folder / "script.py", deadline=deadline, length=length))
    return path


# A script that repeats the reference picture as a video of some frame rate and length.
WRITE = """
import cv2, numpy as np
from pathlib import Path
from talking_face.media.writing import Encoding, write_video
from talking_face.media.reading import read_audio
picture = cv2.cvtColor(cv2.imread(face), cv2.COLOR_BGR2RGB)
assert emotion == "hap" and len(read_audio(Path(sound))) == 6 * 640
print("working")
fast = Encoding(crf=5, preset="ultrafast")
write_video(Path(output), np.repeat(picture[None], {frames}, axis=0), {fps}, encoding=fast)
"""


@pytest.fixture
def case(tmp_path: Path) -> Case:
    made = make_case(SEES)
    made.log = tmp_path / "logs" / "pair.log"
    return made


def test_a_command_receives_files_and_its_video_is_read(tmp_path: Path, case: Case) -> None:
    method = get_method(str(command_method(tmp_path, WRITE.format(frames=6, fps=25))))
    frames = method.generate(case)
    assert frames.shape == (6, 8, 8, 3) and case.notes == []
    assert np.abs(frames[0].astype(int) - case.reference_frames[0]).mean() < 12  # chroma is halved
    assert (tmp_path / "logs" / "pair.log").read_text() == "working\n"
    assert method.revision.startswith("1+")


def test_another_frame_rate_and_length_are_converted(tmp_path: Path, case: Case) -> None:
    method = get_method(str(command_method(tmp_path, WRITE.format(frames=8, fps=50), length="cut-or-hold-last")))
    assert method.generate(case).shape == (6, 8, 8, 3)
    assert case.notes == [
        "rate: nearest frame, from 50 to 25 frames/s",
        "cut-or-hold-last: last of 4 frames held to 6",
    ]


@pytest.mark.parametrize(
    ("script", "reason", "words"),
    [
        ("", Reason.MISSING_OUTPUT, "wrote no output.mp4"),
        ("open(output, 'w')", Reason.EMPTY_FILE, "is empty"),
        ("open(output, 'w').write('no video' * 99)", Reason.NOT_MEDIA, "output.mp4"),
        ("print('no GPU here'); sys.exit(3)", Reason.METHOD_FAILED, "ended with 3: no GPU here"),
    ],
)
def test_each_failure_has_its_reason(tmp_path: Path, case: Case, script: str, reason: Reason, words: str) -> None:
    with pytest.raises(ClipError, match=words) as caught:
        get_method(str(command_method(tmp_path, script))).generate(case)
    assert caught.value.reason is reason


def test_a_command_over_its_deadline_is_killed_with_its_children(tmp_path: Path, case: Case) -> None:
    pid = tmp_path / "pid"
    script = f"""
import subprocess, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open({str(pid)!r}, "w").write(str(child.pid))
time.sleep(600)
"""
    with pytest.raises(ClipError, match="took over 3 s") as caught:
        get_method(str(command_method(tmp_path, script, deadline=3))).generate(case)
    assert caught.value.reason is Reason.DEADLINE
    time.sleep(0.2)
    status = Path(f"/proc/{pid.read_text()}/status")
    assert not status.exists() or "zombie" in status.read_text()


def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    text = ENTRY.format(python="/no/such/python", script="x", deadline=9, length="as-is")
    path.write_text(text)
    with pytest.raises(UserError, match="there is no program /no/such/python"):
        get_method(str(path))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("{output}", "{out}", "unknown placeholder out"),
        ('"{output}"', '"x"', "needs {output}"),
        ('"driving-audio", ', "", "given driving-audio, which `sees` does not name"),
        ('kind = "command"', 'kind = "videos"', "has no `command`"),
        ("deadline_s", "dead_line_s", r"unknown field 'dead_line_s' in command; did you mean deadline_s\?"),
        ("licence", "license", r"unknown field 'license'; did you mean licence\?"),
        ('name = "', 'name = "A ', "name: 'A mine' may contain a-z"),
        ("summary = ", "sumary = 1 #", r"the field summary is missing; unknown field 'sumary'; did you mean summary\?"),
    ],
)
def test_a_wrong_entry_is_an_error_that_names_the_field(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = command_method(tmp_path, "")
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=words) as caught:
        read_entry(path)
    assert "Value error" not in str(caught.value)


def test_one_line_commands_are_split_without_a_shell() -> None:
    run = CommandRun.model_validate({"command": "conda run -n eat python 'my demo.py' {source_video} {output}; rm x"})
    assert run.command[5] == "my demo.py" and run.command[-2:] == ("rm", "x")
    assert run.sees() == {"source-video"}


# -- processes, environment and sizes ---------------------------------------------------------------------------------

# Starts a process in a session of its own whose parents have ended, as a daemon does.
DAEMON = """
import os, time
def daemon(path):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            open(path, "w").write(str(os.getpid()))
            time.sleep(600)
        os._exit(0)
    os.wait()
    while not os.path.exists(path) or not open(path).read():
        time.sleep(0.01)
"""


def alive(pid_file: Path) -> bool:
    """True if the process runs after at most 3 s."""
    end = time.monotonic() + 3
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid_file.read_text()}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if state == "Z":
            return False
        time.sleep(0.05)
    return True


def test_a_daemon_of_a_command_ends_with_its_pair(tmp_path: Path, case: Case) -> None:
    script = f"{DAEMON}\ndaemon({str(tmp_path / 'pid')!r})\nsys.exit(3)"
    with pytest.raises(ClipError, match="ended with 3"):
        get_method(str(command_method(tmp_path, script))).generate(case)
    assert not alive(tmp_path / "pid")


@pytest.mark.parametrize("kind", ["command", "class"])
def test_no_process_and_no_folder_is_left_when_the_suite_is_killed(tmp_path: Path, kind: str, outside: Path) -> None:
    pid = tmp_path / "pid"
    work = f"{DAEMON}\ndaemon({str(pid)!r})\ntime.sleep(600)\n"
    if kind == "command":
        entry = command_method(tmp_path, work)
    else:
        (outside.parent / "repo" / "mine.py").write_text(work)
        entry = outside
    (tmp_path / "tmp").mkdir()
    code = (
        "import sys; from cmet_baselines.registry import get_method\n"
        "from tests.baselines.test_methods import make_case\n"
        "m = get_method(sys.argv[1]); m.generate(make_case(m.sees))"
    )
    suite = subprocess.Popen(
        [sys.executable, "-c", code, str(entry)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
    )
    while not pid.exists() or not pid.read_text():
        assert suite.poll() is None
        time.sleep(0.02)
    suite.kill()
    suite.wait()
    assert not alive(pid)
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    sweep = "from talking_face.scratch import remove_abandoned; remove_abandoned()"
    subprocess.run([sys.executable, "-c", sweep], env=environment, check=True, cwd=Path(__file__).parents[2])
    assert not list((tmp_path / "tmp").iterdir())


def test_a_method_does_not_receive_the_library_folders_of_this_suite() -> None:
    ours = {"LD_LIBRARY_PATH": "/venv/cv2/../../lib64:/opt/cuda/lib64:/venv/cv2/../../lib64:"}
    assert method_environment(ours, {}) == {"LD_LIBRARY_PATH": "/opt/cuda/lib64"}


def test_a_method_receives_no_credentials_unless_they_are_named(tmp_path: Path, case: Case, monkeypatch) -> None:
    secrets = ("AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "HF_TOKEN", "SSH_AUTH_SOCK", "HF_HUB_TOKEN", "MY_LICENCE")
    for name in (*secrets, "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "0")
    path = command_method(tmp_path, "import os; print(sorted(os.environ)); sys.exit(3)")
    path.write_text(path.read_text() + 'environment_from = ["MY_LICENCE"]\n[command.environment]\nOWN = "1"\n')
    with pytest.raises(ClipError):
        get_method(str(path)).generate(case)
    assert case.log is not None
    text = case.log.read_text()
    assert "OWN" not in str(describe(str(path)))  # its value would be stored in result rows
    assert not [name for name in secrets[:-1] if f"'{name}'" in text]
    assert all(f"'{name}'" in text for name in ("MY_LICENCE", "OWN", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "PATH"))


def test_a_command_that_prints_or_writes_without_end_is_stopped(tmp_path: Path, case: Case, monkeypatch) -> None:
    monkeypatch.setattr(command, "OUTPUT_BYTES", 1 << 20)
    for script, words in (
        ("while True: print('x' * 100000)", "printed over 16 MB"),
        ("f = open(output, 'wb')\nwhile True: f.truncate(f.tell() + 2000000); f.seek(0, 2)", "wrote an output of over"),
    ):
        with pytest.raises(ClipError, match=words) as caught:
            get_method(str(command_method(tmp_path, script))).generate(case)
        assert caught.value.reason is Reason.METHOD_FAILED
    assert case.log is not None and case.log.stat().st_size <= command.LOG_BYTES


# What a class can do to the files and pipes that it shares with the suite. `answers` is the pipe of host.py.
FORGED = {
    "answers.write('x' * 5_000_000); answers.flush(); time.sleep(600)": "answered over 1 MB",
    "answers.write('[1]\\n'); answers.flush(); time.sleep(600)": "wrote to the pipe of its answers",
    "np.save = lambda path, *a, **k: open(path, 'wb').write(huge)": r"no readable array: \(1000000, 1000000, 1000, 3\)",
    "np.save = lambda path, *a, **k: keep(path, np.array([{}, {}], object), allow_pickle=True)": "no readable array: ",
    "np.save = lambda *a, **k: None": "no readable array: .*No such file",
}


@pytest.mark.parametrize("line", FORGED)
def test_forged_answers_of_a_class_are_reasons(outside: Path, line: str) -> None:
    at_import, in_call = (line, "pass") if line.startswith("np.save") else ("", line)
    text = f"""
import io, sys, time
import numpy as np
keep = np.save
head = io.BytesIO()
np.lib.format.write_array_header_1_0(
    head, {{"shape": (1000000, 1000000, 1000, 3), "fortran_order": False, "descr": "|u1"}}
)
huge = head.getvalue()
{at_import}

class Mine:
    name, revision, sees = "mine", "7", {{"reference-frames", "driving-audio"}}

    def generate(self, case):
        answers = sys._getframe(2).f_locals["answers"]
        {in_call}
        return case.reference_frames
"""
    (outside.parent / "repo" / "mine.py").write_text(text)
    method = get_method(str(outside))
    with pytest.raises(ClipError, match=FORGED[line]) as caught:
        method.generate(make_case(method.sees))
    assert caught.value.reason is Reason.METHOD_FAILED


# -- classes -----------------------------------------------------------------------------------------------------------

OUTSIDE = '''
import os
import numpy as np
from metrics import scale          # its own, not this suite's
import pipelines

class Mine:
    """Doubles the reference."""
    name, revision, sees = "mine", "7", {"reference-frames", "driving-audio"}

    def generate(self, case):
        print("a line of output")
        if case.seed == 1:
            os._exit(9)
        if case.seed == 2:
            import time; time.sleep(600)
        if case.seed == 3:
            case.target_emotion
        case.note("pid %d" % os.getpid())
        return np.repeat(case.reference_frames[:1] // scale, case.n_frames, axis=0)
'''


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A repository that has its own `metrics` and `pipelines`."""
    repository = tmp_path / "repo"
    for name, text in (("mine.py", OUTSIDE), ("metrics.py", "scale = 2"), ("pipelines.py", "")):
        repository.mkdir(exist_ok=True)
        (repository / name).write_text(text)
    path = tmp_path / "mine.toml"
    path.write_text(
        textwrap.dedent("""
        name = "mine"
        title = "Mine"
        summary = "A class."
        kind = "python"
        target = "mine:Mine"
        revision = "7"
        licence = "MIT"
        sees = ["reference-frames", "driving-audio"]
        [process]
        folders = ["repo"]
        deadline_s = 2
        """)
    )
    return path


def test_a_class_runs_in_its_own_process_with_its_own_metrics(outside: Path) -> None:
    method = get_method(str(outside))
    case = make_case(method.sees)
    frames = method.generate(case)
    assert np.array_equal(frames[5], case.reference_frames[0] // 2)
    assert case.notes[0].startswith("pid ") and str(os.getpid()) not in case.notes[0]


def test_a_class_that_crashes_hangs_or_reads_an_undeclared_input(outside: Path) -> None:
    method = get_method(str(outside))
    expected = {
        1: (Reason.CRASHED, "ended with 9: .*a line of output"),
        2: (Reason.DEADLINE, "took over 2 s"),
        3: (Reason.METHOD_FAILED, "the case has no target_emotion"),
    }
    for seed, (reason, words) in expected.items():
        case = make_case(method.sees)
        case.seed = seed
        with pytest.raises(ClipError, match=words) as caught:
            method.generate(case)
        assert caught.value.reason is reason
    assert len(method.generate(make_case(method.sees))) == 6  # the next case works


def test_a_class_that_lacks_members_of_a_method(outside: Path) -> None:
    (outside.parent / "repo" / "mine.py").write_text("class Mine: name = 'mine'")
    with pytest.raises(UserError, match="it has no revision, generate"):
        get_method(str(outside))


# -- videos, and other forms of output ---------------------------------------------------------------------------------


def test_a_folder_of_videos(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "s"
    folder.mkdir(parents=True)
    write_video(folder / "p.mp4", np.full((6, 8, 8, 3), 99, np.uint8), 25)
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\ntitle = "Mine"\nsummary = "Videos."\nkind = "videos"\nrevision = "1"\nlicence = "-"\n'
        'sees = []\n[videos]\nfolder = "made"\n'
    )
    method = get_method(str(path))
    assert np.abs(method.generate(make_case(frozenset())).astype(int) - 99).max() < 4
    (folder / "p.mp4").unlink()
    with pytest.raises(ClipError, match=r"wrote no p\.mp4"):
        method.generate(make_case(frozenset()))


DOCS = Path(__file__).parents[2] / "docs" / "how_to" / "add_a_method.md"


def test_the_methods_of_the_how_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in re.findall(r"```(?:python|toml)\n# ([\w.-]+)\n(.*?)```", DOCS.read_text(), re.S):
        (tmp_path / name).write_text(text.replace("/path/to/its/python", sys.executable))
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "made" / "s" / "p.mp4", np.full((6, 8, 8, 3), 99, np.uint8), 25)
    for name in ("sway:Sway", "sway-class.toml", "still.toml", "finished.toml"):
        method = get_method(name)
        case = make_case(method.sees)
        assert method.generate(case).shape == (6, 8, 8, 3), name
        assert describe(name)["summary"].endswith("."), name


CLIPS = Path(__file__).parents[2].parent / "shared" / "data" / "clips"


@pytest.mark.skipif(not CLIPS.is_dir(), reason="no real clips in ../shared/data/clips")
def test_landmark_similarity_moves_a_face_to_its_place_in_the_reference() -> None:
    import cv2

    clip = read_frames(sorted(CLIPS.glob("*.mpg"))[0])[:10, 20:276, 60:316]
    clip = np.ascontiguousarray(clip)
    turn = cv2.getRotationMatrix2D((128, 128), 8, 1.2)
    turn[:, 2] += 14, -9
    moved = np.stack([cv2.warpAffine(f, turn, (300, 280), borderMode=cv2.BORDER_REPLICATE) for f in clip])
    case = make_case(frozenset({"reference-frames"}), size=(256, 256), reference_frames=clip[:5].copy())
    back = fit_size(moved, case, "landmark-similarity")
    middle = np.s_[:, 60:200, 60:200]
    before = np.abs(moved[:, :256, :256][middle].astype(int) - clip[middle]).mean()
    after = np.abs(back[middle].astype(int) - clip[middle]).mean()
    assert back.shape == clip.shape and after < 6 < 3 * 6 < before
    assert case.notes[0].startswith("size: landmark-similarity, scale 0.8")


def test_resize_adds_a_note() -> None:
    case = make_case(frozenset())
    assert fit_size(np.zeros((2, 16, 16, 3), np.uint8), case, "resize").shape == (2, 8, 8, 3)
    assert case.notes == ["size: resized from 16x16 to 8x8"]
