"""What happens to jobs and roles when the server fails, is full, is none that will do, or is given nonsense."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from msgspec import Raw, json

import gbe_nexus
from gbe_jobs_domain import subjects
from gbe_jobs_domain.definitions import JobDefinition, TaskDefinition
from gbe_jobs_domain.ids import new_job_id
from gbe_jobs_domain.payloads import JobSubmitted
from gbe_jobs_domain.streams import DEADLETTER, EVENTS, JOURNAL, PROGRESS, WORK_STREAMS, Retention
from gbe_nexus import ConsumerSpec, Message, NexusError, Stream, encode_payload
from gbe_nexus.deadletter import DeadLetter
from gbe_nexus_nats.binary import find_server
from gbe_nexus_nats.server import HOST, EmbeddedServer, ServerError, free_port
from gbe_overseer.client import CancelAnswer
from gbe_overseer.errors import EcumeneFull
from tests.integration.site import QUICK, Site, applied, output, shell
from tests.integration.test_several_oracles import Load

pytestmark = pytest.mark.server

ROLES = {
    "oracle": ["-m", "gbe_oracle"],
    "operative": ["-m", "gbe_operative.command", "--handles", "noop=mock:1"],
}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Site(EmbeddedServer(), tmp_path) as site:
        yield site


# --- a server that fails --------------------------------------------------------------------------------------


async def test_the_server_is_killed_and_stands_still(site: Site, tmp_path: Path) -> None:
    """Jobs go on by themselves; no outcome is lost or recorded twice; a running command isn't run again."""
    server = site.server
    assert isinstance(server, EmbeddedServer)
    # A lease longer than the outage: whoever can't renew it meanwhile may have its task run by another.
    await site.start(site.oracle(GBE_PURGE_AFTER="3600"), site.operative("noop=mock:16,shell:2", lease=20))
    file = tmp_path / "starts"
    command = f"echo x >> {file}; until [ -e {tmp_path}/go ]; do sleep 0.1; done; echo done"
    long = await site.submit(shell("long", command), shell("after", "cat", ["long"], input_from={"stdin_ref": "long"}))
    await site.file(file)
    load = Load(site)
    await load.more(10)

    await server.kill()
    await asyncio.sleep(0.5)
    await server.start()
    killed = await load.more(1)
    await load.more(20)

    server.suspend()
    await asyncio.sleep(5)
    server.resume()
    suspended = await load.more(1)
    await load.more(20)

    (tmp_path / "go").touch()
    assert await site.end(long) == "completed"
    assert output((await site.tasks(long))["after"]) == ["done"]
    assert len(file.read_text().split()) == 1
    assert applied(await site.records(long)) == {0: 1, 1: 1}
    await load.finish()
    print(f"\ngoes on {killed:.2f} s after the restart, {suspended:.2f} s after SIGCONT")
    for role in site.roles:
        assert await role.stop() == 0, role.log.read_text()


async def test_an_ecumene_goes_on_with_its_data(tmp_path: Path) -> None:
    """All processes are killed, the server too: a new one on the same data, and new roles, finish the job."""
    data = tmp_path / "data"
    go = tmp_path / "go"
    file = tmp_path / "starts"
    command = f"echo x >> {file}; until [ -e {go} ]; do sleep 0.1; done; echo done"
    server = EmbeddedServer(data)
    async with Site(server, tmp_path) as site:
        await site.start(site.oracle(), site.operative("shell:2", lease=1))
        job_id = await site.submit(shell("a", "echo 1"), shell("b", command, ["a"]), shell("c", "echo 3", ["b"]))
        await site.file(file)
        for role in site.roles:
            await role.kill()
        await server.kill()
    go.touch()
    async with Site(EmbeddedServer(data), tmp_path) as site:
        await site.start(site.oracle("again", **QUICK), site.operative("shell:2", "worker-again", lease=1))
        assert await site.end(job_id) == "completed"
        assert site.events(job_id) == ["created", "completed"]
        # A server that was killed may have forgotten how often it delivered something.
        assert [task.attempts for task in (await site.history(job_id)).tasks] in ([1, 2, 1], [1, 1, 1])
        assert len(file.read_text().split()) == 2
        await site.clean()


# --- no server that will do -----------------------------------------------------------------------------------


@asynccontextmanager
async def no_jetstream(folder: Path) -> AsyncIterator[str]:
    port = free_port()
    process = subprocess.Popen(
        [find_server(), "--addr", HOST, "--port", str(port), "--log", str(folder / "plain.log")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection(HOST, port)
                    writer.close()
                    break
                await asyncio.sleep(0.01)
        yield f"nats://{HOST}:{port}"
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def too_old(folder: Path) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"server_id": "X", "version": "2.9.25", "proto": 1, "max_payload": 1 << 20, "jetstream": True}
        writer.write(b"INFO " + json.encode(info) + b"\r\n")
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    async with server:
        yield f"nats://{HOST}:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def wrong_password(folder: Path) -> AsyncIterator[str]:
    async with EmbeddedServer() as server:
        yield server.url


@asynccontextmanager
async def nobody_there(folder: Path) -> AsyncIterator[str]:
    yield f"nats://{HOST}:{free_port()}"


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    ("server", "says"),
    [
        (no_jetstream, "JetStream is not enabled on this server"),
        (too_old, "nats-server 2.9.25 is too old, 2.11 or newer is needed"),
        (wrong_password, "the server does not accept these credentials"),
        (nobody_there, "no NATS server answers"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_one_line_and_exit_code_2(tmp_path: Path, role: str, server: type, says: str) -> None:
    async with server(tmp_path) as url:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *ROLES[role],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "GBE_NATS_URL": url,
                "GBE_NATS_USER": "gbe",
                "GBE_NATS_PASSWORD": "guessed-wrong",
                "GBE_CONNECT_TIMEOUT": "0.5",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 30)
    lines = err.decode().splitlines()
    assert process.returncode == 2, lines
    assert out == b""
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"gbe-{role}: ")
    assert says.lower() in lines[0].lower()
    assert url in lines[0]
    assert "guessed-wrong" not in lines[0]


async def test_the_server_s_port_is_taken(tmp_path: Path) -> None:
    async with EmbeddedServer() as server:
        with pytest.raises(ServerError, match=f"port {server.port} on {HOST} is taken by another process"):
            await EmbeddedServer(tmp_path / "other", port=server.port).start()


# --- a server that is full ------------------------------------------------------------------------------------


async def test_a_full_stream_refuses_new_jobs_and_finishes_the_others(tmp_path: Path) -> None:
    """At 80 % of a limit: refused with the reason, by the client and by the Oracle; accepted again afterwards."""
    async with Site(EmbeddedServer(), tmp_path, retention=Retention(work_bytes=8 << 20)) as site:
        await site.start(
            site.oracle(GBE_WORK_STREAM_MIB="8", **QUICK),
            site.operative("shell:2,noop=mock:2", GBE_INLINE_LIMIT="4096"),
        )
        go = tmp_path / "go"
        held = await site.submit(
            shell("a", f"until [ -e {go} ]; do sleep 0.1; done; echo a"),
            *(shell(f"t{number}", "head -c 3000 /dev/zero | tr '\\0' x", ["a"]) for number in range(100)),
        )
        filling: list[str] = []

        async def fill() -> None:
            for _ in range(30):
                filling.append(await site.submit(TaskDefinition("big", "nobody", params={"x": "x" * 450_000})))
                await site.until(lambda: site.events(filling[-1]))

        with pytest.raises(EcumeneFull, match=r"stream GBE_\w+ is \d+% full"):
            await fill()

        # Who does not ask first is told by the Oracle.
        body = json.encode(JobDefinition("test", "test", [TaskDefinition("a", "noop")]))

        async def submit_blindly() -> str:
            job_id = new_job_id()
            submit = JobSubmitted(job_id, "test", definition=Raw(body))
            await site.transport.publish(subjects.submit("test"), encode_payload(f"{job_id}:submit", submit))
            await site.until(lambda: site.events(job_id))
            return job_id

        async with asyncio.timeout(20):  # the Oracle looks every two seconds
            while site.events(refused := await submit_blindly()) != ["refused"]:
                await asyncio.sleep(0.1)
        assert "% full" in site.bodies[refused, "refused"]["reason"]

        go.touch()
        assert await site.end(held) == "completed"

        for job_id in filling:
            assert (await site.client.cancel(job_id)).answer is CancelAnswer.CANCELLED
        # Whoever serves that type drops what nobody wants any more.
        await site.start(site.operative("nobody=mock:4"))
        async with asyncio.timeout(20):
            while True:
                try:
                    again = await site.submit(shell("a", "echo again"))
                except EcumeneFull:
                    await asyncio.sleep(0.1)
                    continue
                if await site.end(again) == "completed":
                    break
        assert site.events(again) == ["created", "completed"]
        await site.clean()


async def test_a_small_disk(tmp_path: Path) -> None:
    """A server sets the bytes of all limits aside when streams are made: where it can't, Oracles make do with less."""
    async with EmbeddedServer(max_file_store=300 << 20) as server:
        site = Site(server, tmp_path, make_streams=False)
        first, second = site.oracle(**QUICK), site.oracle(**QUICK)
        await first.start()
        assert "stream GBE_QUEUE holds at most 128 MiB, not 8192" in first.log.read_text()
        await second.start()
        async with site:
            await site.follow()
            await site.start(site.operative("noop=mock:1"))
            assert await site.end(await site.submit(TaskDefinition("a", "noop"))) == "completed"
            states = [await site.transport.stream_state(name) for name in WORK_STREAMS]
            assert all(8 << 20 <= state.max_bytes <= 128 << 20 for state in states)


async def test_limits_of_the_site_s_own(tmp_path: Path) -> None:
    """Streams that exist keep their size limits; one that could lose work is refused in one line."""
    async with Site(EmbeddedServer(), tmp_path, retention=Retention(work_bytes=100 << 20)) as site:
        await site.start(oracle := site.oracle())
        assert "stream GBE_INBOX holds at most 100 MiB, not 8192" in oracle.log.read_text()
        assert await oracle.stop() == 0
    async with EmbeddedServer() as server:
        transport = await gbe_nexus.connect(server.url, server.options)
        await transport.ensure_stream(Stream("GBE_QUEUE", ("gbe.tasks.*.queue",), discard_old=True))
        await transport.close()
        oracle = Site(server, tmp_path, make_streams=False).oracle("lossy")
        with pytest.raises(AssertionError, match="did not get ready"):
            await oracle.start()
        assert await oracle.wait() == 2
        [line] = oracle.log.read_text().splitlines()
        assert line.startswith("gbe-oracle: stream GBE_QUEUE exists with other settings: ")
        assert "discard_old: found True, expected False" in line


async def test_the_server_s_disk_is_full(tmp_path: Path) -> None:
    """Nothing that was acknowledged is lost, no role gives up, and when there is room again it all goes on."""
    mount = tmp_path / "disk"
    mount.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(mount)]
    if subprocess.run(mounting, check=False, capture_output=True).returncode:
        pytest.skip("may not mount a file system of its own here (needs root)")
    async with AsyncExitStack() as stack:
        stack.callback(lambda: subprocess.run(["umount", "--lazy", str(mount)], check=True))
        server = EmbeddedServer(mount / "data")
        await stack.enter_async_context(server)
        small = Retention(
            **dict.fromkeys(
                ("work_bytes", "history_bytes", "events_bytes", "progress_bytes", "deadletter_bytes"), 6 << 20
            )
        )
        site = await stack.enter_async_context(Site(server, tmp_path, retention=small))
        await site.start(site.oracle(**QUICK), site.operative("shell:2", lease=5))
        go = tmp_path / "go"
        before = await site.submit(shell("a", "echo before"))
        held = await site.submit(
            shell("a", f"until [ -e {go} ]; do sleep 0.1; done; echo done"), shell("b", "echo b", ["a"])
        )
        assert await site.end(before) == "completed"
        await site.until(lambda: any(p["job_id"] == held for p in site.progress))

        async def fill() -> None:
            async with asyncio.timeout(3):
                while True:
                    await site.submit(TaskDefinition("big", "nobody", params={"x": "x" * 400_000}))

        filler = mount / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        with pytest.raises(
            (NexusError, TimeoutError)
        ):  # the server says nothing any more; a publish takes 10 s to say so
            await fill()
        go.touch()
        await asyncio.sleep(0.5)
        assert all(role.running for role in site.roles), site.logs()

        filler.unlink()
        await server.restart()
        assert await site.end(held, 60) == "completed"
        assert site.events(held) == ["created", "completed"]
        assert await site.end(await site.submit(shell("a", "echo after"))) == "completed"
        assert all(role.running for role in site.roles), site.logs()


# --- messages that make no sense ------------------------------------------------------------------------------


async def test_undecodable_messages_on_every_subject(site: Site) -> None:
    """They become dead letters with the reason, and everything else keeps flowing."""
    await site.start(site.oracle(**QUICK), site.operative("shell:2,noop=mock:2"))
    letters: list[DeadLetter] = []

    def on_letters(messages: Sequence[Message]) -> None:
        for message in messages:
            letters.append(json.decode(json.encode(json.decode(message.payload)["data"]), type=DeadLetter))
            message.ack()

    await site.transport.subscribe(ConsumerSpec(DEADLETTER), on_letters)
    job_id = new_job_id()
    well_formed = encode_payload("x", {"job_id": job_id, "task_id": "task_x_0", "task_type": "noop"})
    other_type = encode_payload("x", JobSubmitted(job_id, "other", definition=Raw(b"{}")))
    bodies = [b"", b"not json", b"\xff\xfe\x00", b"[]", b"{}", b'{"v":1}', b"[" * 100_000, b"null", well_formed]
    taken = [
        subjects.queue("noop"),
        subjects.terminal("noop"),
        subjects.submit("test"),
        subjects.cancel("test"),
    ]
    count = 0
    for subject in taken:
        for body in bodies:
            if subject.endswith(".cancel") and body is well_formed:
                continue  # that one is a cancel, of a job that nobody knows
            await site.transport.publish(subject, body)
            count += 1
    await site.transport.publish(subjects.submit("test"), other_type)
    await site.until(lambda: len(letters) >= count + 1, what="all dead letters")
    # Nobody is owed an answer to these: they are left out, and logged.
    for subject in (subjects.control("noop"), subjects.control("shell"), subjects.job_event("test", "created")):
        for body in bodies[:-1]:
            if subject.endswith(".control"):
                await site.transport.publish(subject, body)
    assert await site.end(await site.submit(shell("a", "echo 1"), TaskDefinition("b", "noop"))) == "completed"
    assert len(letters) == count + 1
    assert {letter.subject for letter in letters} == set(taken)
    assert all(letter.reason for letter in letters)
    assert {letter.body for letter in letters if letter.subject == taken[0]} == set(bodies)
    assert any("job type 'other' on the subject of 'test'" in letter.reason for letter in letters)
    assert all(role.running for role in site.roles)
    await site.clean()


async def test_a_definition_that_is_none(site: Site) -> None:
    """A well-formed submit of something that is no job: refused with the reason, no dead letter."""
    await site.start(site.oracle(**QUICK))
    tasks = b'[{"name":"a","task_type":"noop","depends_on":["b"]},{"name":"b","task_type":"noop","depends_on":["a"]}]'
    for body, reason in [
        (b"[]", "not a job"),
        (b'{"name":"x","job_type":"other","tasks":[{"name":"a","task_type":"noop"}]}', "job type"),
        (b'{"name":"x","job_type":"test","tasks":' + tasks + b"}", "a"),
        (b'{"name":"x","job_type":"test","tasks":[]}', "task"),
    ]:
        job_id = new_job_id()
        submit = JobSubmitted(job_id, "test", definition=Raw(body))
        await site.transport.publish(subjects.submit("test"), encode_payload(f"{job_id}:submit", submit))
        assert await site.end(job_id) == "refused"
        assert reason in site.bodies[job_id, "refused"]["reason"]
        assert site.events(job_id) == ["refused"]
    assert (await site.transport.stream_state(JOURNAL)).messages == 0
    assert (await site.transport.stream_state(DEADLETTER)).messages == 0


async def test_a_type_that_nobody_serves(site: Site) -> None:
    """The job waits, anybody can see for what, and an Operative that comes later does it."""
    await site.start(site.oracle(**QUICK))
    job_id = await site.submit(TaskDefinition("a", "exotic"), TaskDefinition("b", "exotic", depends_on=["a"]))
    await site.until(lambda: site.events(job_id))
    assert await site.client.nobody_handles("exotic")
    assert site.ended(job_id) is None
    await site.start(site.operative("exotic=mock:1"))
    assert await site.end(job_id) == "completed"
    assert not await site.client.nobody_handles("exotic")


async def test_what_may_be_lost_never_stops_a_job(tmp_path: Path) -> None:
    """Events and progress are copies: their streams drop the oldest, and jobs do not care."""
    retention = Retention(events_bytes=20_000, progress_bytes=20_000)
    async with Site(EmbeddedServer(), tmp_path, retention=retention) as site:
        await site.start(site.oracle(**QUICK), site.operative("noop=mock:8,shell:2"))
        ids = [await site.submit(TaskDefinition("a", "noop")) for _ in range(300)]
        chatty = await site.submit(shell("talk", "for i in 1 2 3 4 5; do seq 1 300; sleep 0.1; done"))
        await site.end(chatty)
        for job_id in ids:
            assert (await site.history(job_id)).state == "completed"
        for name in (EVENTS, PROGRESS):
            assert (await site.transport.stream_state(name)).bytes <= 20_000
        await site.clean()
