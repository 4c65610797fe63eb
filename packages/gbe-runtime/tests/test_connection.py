"""The connection file, and how the bus is found."""

import json
import os
from pathlib import Path

import pytest

from gbe_nexus import Unavailable, UnknownTransport
from gbe_runtime import BusSettings, ConfigurationError, ConnectionFile, connect_bus
from gbe_runtime.connection import find_bus
from gbe_runtime.log import mask
from gbe_runtime.secret import SecretStr

FOUND = ConnectionFile(url="nats://127.0.0.1:4222", user="gbe", password="correct horse", data_dir="/d", pid=1)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "gbe" / "connection.json"


def test_it_is_where_the_user_keeps_such_things(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ConnectionFile.default_path() == path
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert ConnectionFile.default_path() == Path("/home/somebody/.local/state/gbe/connection.json")


def test_it_comes_back_as_it_was_written_for_its_owner_only(path: Path) -> None:
    assert ConnectionFile.read() is None
    before = os.umask(0)
    try:
        assert FOUND.write() == path
    finally:
        os.umask(before)
    assert ConnectionFile.read() == FOUND
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["connection.json"]
    assert "correct horse" not in repr(FOUND)


def test_it_replaces_an_older_one_whole(path: Path) -> None:
    FOUND.write()
    ConnectionFile(url="nats://other", pid=2).write()
    assert ConnectionFile.read() == ConnectionFile(url="nats://other", pid=2)


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o601])
def test_one_that_others_could_read_or_write_is_refused(path: Path, mode: int) -> None:
    FOUND.write()
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=rf"open to others \(mode {mode:04o}, expected 0600\)"):
        ConnectionFile.read()


def test_one_of_somebody_else_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FOUND.write()
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(ConfigurationError, match="belongs to user"):
        ConnectionFile.read()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"url": 3}', b"\xff\xfe", b'{"url": "x"} x'])
def test_a_damaged_one_is_said_to_be_damaged(path: Path, content: bytes) -> None:
    FOUND.write()
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="is damaged"):
        ConnectionFile.read()


def test_something_that_is_no_file_does_not_hang(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path, 0o600)
    with pytest.raises(ConfigurationError, match="not a regular file"):
        ConnectionFile.read()


def test_it_is_removed_by_whom_it_belongs_to(path: Path) -> None:
    FOUND.write()
    ConnectionFile.remove(pid=4711)
    assert path.exists()
    ConnectionFile.remove(pid=1)
    assert not path.exists()
    ConnectionFile.remove()


def test_unknown_keys_of_a_newer_release_are_ignored(path: Path) -> None:
    FOUND.write()
    path.write_text(json.dumps({"url": "nats://x", "colour": "blue"}))
    assert ConnectionFile.read() == ConnectionFile(url="nats://x")


def test_a_named_server_comes_before_the_file(path: Path) -> None:
    FOUND.write()
    url, options, file = find_bus(BusSettings(nats_url="nats://elsewhere"), name="me")
    assert (url, options.user, options.password, options.name, file) == ("nats://elsewhere", None, None, "me", None)


def test_without_one_the_file_gives_url_and_credentials(path: Path) -> None:
    FOUND.write()
    url, options, file = find_bus(BusSettings(replicas=3), name="me")
    assert (url, options.user, options.password, file) == (FOUND.url, "gbe", "correct horse", FOUND)
    assert options.replicas == 3
    assert mask("it is correct horse") == "it is ***"


def test_credentials_that_were_given_count_more_than_those_of_the_file(path: Path) -> None:
    FOUND.write()
    _, options, _ = find_bus(BusSettings(nats_user="me", nats_password=SecretStr("mine")), name="me")
    assert (options.user, options.password) == ("me", "mine")


def test_nothing_configured_is_one_clear_line(path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        find_bus(BusSettings(), name="me")
    [line] = caught.value.lines
    assert str(path) in line
    assert "gbe up" in line
    assert "--nats" in line


def test_credentials_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"GBE_NATS_CREDS .*No such file"):
        find_bus(BusSettings(nats_url="nats://x", nats_creds=tmp_path / "none"), name="me")


async def test_connecting(path: Path) -> None:
    bus = await connect_bus(BusSettings(nats_url="memory://"), name="me")
    assert bus.connected
    await bus.close()
    with pytest.raises(UnknownTransport):
        await connect_bus(BusSettings(nats_url="carrier-pigeon://x"), name="me")


async def test_a_file_left_by_a_dead_process_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(url: str, options: object) -> None:
        raise Unavailable("no server answers")

    monkeypatch.setattr("gbe_runtime.connection.connect", refuse)
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    ConnectionFile(url="nats://127.0.0.1:1", pid=pid).write()
    with pytest.raises(Unavailable, match=rf"no server answers; process {pid}, .* is gone: start `gbe up` again"):
        await connect_bus(BusSettings(), name="me")


@pytest.mark.parametrize(
    ("pid", "alive"),
    [(os.getpid(), True), (1, True), (0, False), (-1, False), (2**40, False)],
    ids=["own", "init", "none", "negative", "too large"],
)
def test_whether_its_process_lives(pid: int, alive: bool) -> None:
    assert ConnectionFile(url="x", pid=pid).alive is alive
