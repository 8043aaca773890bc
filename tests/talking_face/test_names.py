"""Names from outside: which are accepted, their file names, and their printable form."""

from __future__ import annotations

from pathlib import Path

import pytest

from talking_face.names import check_label, check_name, file_name_of, inside, printable, storable, without_folders
from talking_face.reasons import UserError


@pytest.mark.parametrize("name", ["cmet", "Wav2Lip + GAN", "方法", "méthode 2", "a.b", "x" * 100])
def test_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "a/b", "../x", "/abs", "a\\b", ".hidden", "=1+1", "+1", "@x", "a\nb", " a", "x" * 101]
)
def test_what_is_not_a_name(name: str) -> None:
    with pytest.raises(ValueError):
        check_name(name)


def test_a_label_may_hold_slashes() -> None:
    assert check_label("feature/new-loss") == "feature/new-loss"
    with pytest.raises(ValueError, match="formula"):
        check_label('=HYPERLINK("x")')


def test_different_names_have_different_file_names() -> None:
    names = [
        "a/b",
        "a_b",
        "a b",
        "a%2Fb",
        "a@b",
        "方法",
        "方方",
        "..",
        ".",
        "%2E",
        "é",
        "caf\udce9",
        "x" * 300,
        "x" * 301,
    ]
    files = [file_name_of(name) for name in names]
    assert len(set(files)) == len(names)
    assert all(file.isascii() and "/" not in file and len(file) <= 120 and file not in (".", "..") for file in files)
    assert file_name_of("a@b", "c") != file_name_of("a", "b@c")


def test_a_path_inside_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path)
    assert inside(tmp_path / "out", "a", "b.mp4") == tmp_path / "out" / "a" / "b.mp4"
    for names in (("..", "x"), ("/etc/passwd",), ("a", "../../x"), ("link", "x"), (".",), ("a/../b",)):
        with pytest.raises(UserError, match="not a path inside"):
            inside(tmp_path / "out", *names)


def test_printable_text() -> None:
    assert printable("caf\udce9 two\nlines 日本") == r"caf\xe9 two\nlines 日本"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/me/data/a.mp4 is empty", "a.mp4 is empty"),
        ("No such file: '/home/me/my set/a b.mp4'", "No such file: 'a b.mp4'"),
        ("see ~/data/x.csv, C:\\Users\\me\\y.csv", "see x.csv, y.csv"),
        ("labels from:/home/me/x.csv", "labels from:x.csv"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("M003/front/a.mp4 has 1/2 of 25 frames/s", "M003/front/a.mp4 has 1/2 of 25 frames/s"),
    ],
)
def test_text_without_folders(text: str, expected: str) -> None:
    assert without_folders(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data/my set/a.mp4 is cut", "a.mp4 is cut"),
        ("/data/my set/tmp/cmet-eval-x1/output.mp4 is cut", "output.mp4 is cut"),
        ("s3/clips/a.mp4 of class3/b.mp4", "a.mp4 of class3/b.mp4"),
    ],
)
def test_stored_text_names_no_folder_and_no_part_of_one(text: str, expected: str) -> None:
    assert storable(text, folders=(Path("/data/my set"), Path("s3"))) == expected
