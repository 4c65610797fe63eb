"""Files below a root: what is reached, what is not, and what a swap in between gains."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from pathlib import Path

import pytest

from gbe_operative.plugin_settings import root_of
from gbe_operative.rooted import PathError, Root
from gbe_runtime.errors import ConfigurationError


def inside(root: Root) -> Path:
    assert root.path is not None
    return root.path


@pytest.fixture
def root(tmp_path: Path) -> Root:
    top = tmp_path / "inside"
    (top / "deep").mkdir(parents=True)
    (top / "file").write_text("in here")
    (tmp_path / "outside").write_text("out there")
    return Root(top)


def test_reading(root: Root, tmp_path: Path) -> None:
    for path in ("file", "./file", "deep/../file", str(inside(root) / "file")):
        with root.open(path) as file:
            assert file.read(7) == b"in here"
            assert file.path == inside(root) / "file"
    with root.open("file") as file, pytest.raises(PathError, match=r"7 bytes are too many \(limit 6"):
        file.read(6)


def test_a_link_that_stays_inside_is_followed(root: Root) -> None:
    (inside(root) / "deep" / "link").symlink_to("../file")
    with root.open("deep/link") as file:
        assert file.path == inside(root) / "file", "where it really is"


@pytest.mark.parametrize(
    "path", ["../outside", "deep/../../outside", "/etc/passwd", "../nowhere", "/nowhere/at/all", "link", "away/outside"]
)
def test_nothing_outside_is_reached_or_told_of(root: Root, tmp_path: Path, path: str) -> None:
    (inside(root) / "link").symlink_to(tmp_path / "outside")
    (inside(root) / "away").symlink_to(tmp_path)
    with pytest.raises(PathError, match=r"outside of .*/inside"):
        root.open(path)
    with pytest.raises(PathError, match=r"outside of .*/inside") if path != "link" else _as_it_is():
        root.write(path, b"x")
    assert (tmp_path / "outside").read_text() == "out there"
    assert not (tmp_path / "nowhere").exists()


class _as_it_is:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


def test_writing_replaces_a_link_instead_of_following_it(root: Root, tmp_path: Path) -> None:
    (inside(root) / "link").symlink_to(tmp_path / "outside")
    assert root.write("link", b"new") == inside(root) / "link"
    assert not (inside(root) / "link").is_symlink()
    assert (tmp_path / "outside").read_text() == "out there"


def test_a_sibling_with_the_same_beginning_is_outside(root: Root, tmp_path: Path) -> None:
    (tmp_path / "inside-not").write_text("x")
    with pytest.raises(PathError, match="outside"):
        root.open("../inside-not")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("missing", "no such file"),
        ("file/below", "no such file"),
        ("deep", "a directory"),
        (".", "a directory"),
        ("", "no path"),
        ("a\0b", "no path"),
        ("x" * 5000, "no path"),
        ("x" * 300, "too long"),
        ("\ud800", "no path"),
        ("pipe", "not a regular file"),
        ("loop", "Too many levels"),
    ],
)
def test_what_is_no_file(root: Root, path: str, says: str) -> None:
    os.mkfifo(inside(root) / "pipe")
    (inside(root) / "loop").symlink_to("loop")
    with pytest.raises(PathError, match=says):
        root.open(path)


def test_a_directory_that_becomes_a_link_while_it_is_opened(root: Root, tmp_path: Path) -> None:
    """The attack that a check by name loses: `swap` is now a directory in the root, now a link out of it."""
    secret = tmp_path / "secrets"
    secret.mkdir()
    (secret / "file").write_text("secret")
    (inside(root) / "real").mkdir()
    (inside(root) / "real" / "file").write_text("public")
    swap = inside(root) / "swap"
    swap.symlink_to("real")
    stop = threading.Event()

    def attack() -> None:
        for number in range(1_000_000):
            if stop.is_set():
                return
            other = inside(root) / "other"
            other.symlink_to(secret if number % 2 == 0 else "real")
            os.replace(other, swap)

    attacker = threading.Thread(target=attack)
    attacker.start()
    seen = set()
    try:
        for _ in range(1500):
            try:
                with root.open("swap/file") as file:
                    seen.add(file.read(100))
            except PathError as error:
                seen.add(str(error).split(": ")[1][:13].encode())
            with contextlib.suppress(PathError):
                root.write("swap/written", b"x")
    finally:
        stop.set()
        attacker.join()
    assert seen <= {b"public", b"it is outside"}
    assert not (secret / "written").exists()


def test_writing(root: Root) -> None:
    assert root.write("new/dir/out.txt", b"one") == inside(root) / "new/dir/out.txt"
    target = inside(root) / "new/dir/out.txt"
    assert target.read_bytes() == b"one"
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    target.chmod(0o600)
    before = target.stat().st_ino
    root.write("new/dir/out.txt", b"two")
    assert target.read_bytes() == b"two"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600, "its mode is its owner's matter"
    assert target.stat().st_ino != before, "a new file took its place"
    assert os.listdir(target.parent) == ["out.txt"], "nothing else is left"


@pytest.mark.parametrize(("path", "says"), [("deep", "a directory"), ("x/", "no name"), ("deep/..", "no name")])
def test_what_can_not_be_written(root: Root, path: str, says: str) -> None:
    with pytest.raises(PathError, match=says):
        root.write(path, b"x")


def test_a_full_disk_leaves_the_old_file(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: memoryview) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(PathError, match="No space left"):
        root.write("file", b"other")
    assert (inside(root) / "file").read_text() == "in here"
    assert sorted(os.listdir(inside(root))) == ["deep", "file"]


def test_the_host_names_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert root_of("GBE_X_ROOT", None).path == tmp_path.resolve()
    assert root_of("GBE_X_ROOT", Path("/usr")).path == Path("/usr")
    with pytest.raises(PathError, match=r"outside of /usr, where this host lets tasks reach files \(GBE_X_ROOT\)"):
        root_of("GBE_X_ROOT", Path("/usr")).open("/etc/passwd")
    with pytest.raises(ConfigurationError, match=r"^GBE_X_ROOT: /nowhere: not a directory$"):
        root_of("GBE_X_ROOT", Path("/nowhere"))


def test_a_service_has_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    root = root_of("GBE_X_ROOT", None)
    for reach in (lambda: root.open("etc/passwd"), lambda: root.write("/tmp/x", b"")):
        with pytest.raises(PathError, match=r"this host names no directory for such files \(GBE_X_ROOT\)"):
            reach()
    assert root_of("GBE_X_ROOT", Path("/")).open("etc/passwd").path == Path("/etc/passwd"), "but it may be all"
