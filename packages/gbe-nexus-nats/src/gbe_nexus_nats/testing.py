"""pytest fixtures that give a real server. In the root `conftest.py`: `pytest_plugins = ["gbe_nexus_nats.testing"]`;
in any other, import those that are wanted. Needs the extra `gbe-nexus-nats[testing]`.

`nats_server`: one embedded server for the whole session; a test that harms it makes its own.
`nats_server_each`: a fresh one, which the test may kill. `nats_cluster` (session) and `nats_cluster_each`: three.
`nats_server_docker`: the official image, through testcontainers; skipped where no Docker engine answers.
`any_nats_server`: the embedded one and the one in Docker, in turn.

A server outlives tests, so names (streams, buckets, subjects) have to differ between tests: `unique` gives one.
"""

from __future__ import annotations

import base64
import gc
import json
import secrets
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

import pytest
import pytest_asyncio

from gbe_nexus.connect import ConnectOptions
from gbe_nexus_nats.bucket import last_message
from gbe_nexus_nats.cluster import EmbeddedCluster
from gbe_nexus_nats.server import EmbeddedServer

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

    from gbe_nexus_nats.transport import NatsTransport

IMAGE = "nats:2-alpine"


class Server(Protocol):
    """What a test needs of a server, whoever runs it."""

    @property
    def url(self) -> str: ...
    @property
    def options(self) -> ConnectOptions: ...


class DockerServer:
    """A `nats-server` in a container, as `EmbeddedServer` for what tests need of it."""

    def __init__(self, image: str = IMAGE) -> None:
        self._image = image
        self._password = secrets.token_urlsafe(24)
        self._container: DockerContainer | None = None
        self._url = ""

    @property
    def url(self) -> str:
        return self._url

    @property
    def options(self) -> ConnectOptions:
        return ConnectOptions(user="gbe", password=self._password)

    def start(self) -> None:
        """Start the container; returns when the server is ready."""
        from testcontainers.core.container import DockerContainer
        from testcontainers.core.wait_strategies import LogMessageWaitStrategy

        container = DockerContainer(self._image)
        container.with_command(["--jetstream", "--user", "gbe", "--pass", self._password])
        container.with_exposed_ports(4222)
        container.waiting_for(LogMessageWaitStrategy("Server is ready"))
        container.start()
        self._container = container
        self._url = f"nats://{container.get_container_host_ip()}:{container.get_exposed_port(4222)}"

    def stop(self) -> None:
        """Remove the container."""
        if self._container is not None:
            self._container.stop()
            self._container = None


def docker_problem() -> str | None:
    """Why there is no Docker engine to run a container on; None where there is one."""
    try:
        docker = import_module("docker")  # comes with testcontainers; it has no types
    except ImportError:
        return "the docker client is not installed (gbe-nexus-nats[testing])"
    problem = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            client = docker.from_env(timeout=5)
            try:
                client.ping()
            finally:
                client.close()
        except Exception as error:  # whatever it is, there is no engine
            problem = f"no Docker engine answers: {error}"
        gc.collect()  # here, since a client that could not connect leaves its socket open
    return problem


async def flip_byte(transport: NatsTransport, bucket: str, key: str) -> None:
    """Change the last byte of an artifact behind the store's back; what describes it stays as it is."""
    stream = f"OBJ_{bucket}"
    name = base64.urlsafe_b64encode(key.encode()).decode()
    found = await last_message(transport, stream, f"$O.{bucket}.M.{name}")
    assert found is not None, f"no artifact {bucket}/{key}"
    subject = f"$O.{bucket}.C.{json.loads(found.data)['nuid']}"
    last = await last_message(transport, stream, subject)
    assert last is not None, f"artifact {bucket}/{key} is empty"
    await transport.api(f"$JS.API.STREAM.MSG.DELETE.{stream}", {"seq": last.seq})
    await transport.publish(subject, last.data[:-1] + bytes([last.data[-1] ^ 1]))


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Makes names that no other test uses: `unique("jobs")` → `jobs_3f9c21ab`."""
    return lambda prefix: f"{prefix}_{secrets.token_hex(4)}"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def nats_server() -> AsyncIterator[EmbeddedServer]:
    """The embedded server all tests share."""
    async with EmbeddedServer() as server:
        yield server


@pytest_asyncio.fixture
async def nats_server_each() -> AsyncIterator[EmbeddedServer]:
    """An embedded server for one test, to do with as it likes."""
    async with EmbeddedServer() as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def nats_cluster() -> AsyncIterator[EmbeddedCluster]:
    """The cluster of three servers that tests share."""
    async with EmbeddedCluster() as cluster:
        yield cluster


@pytest_asyncio.fixture
async def nats_cluster_each() -> AsyncIterator[EmbeddedCluster]:
    """A cluster of three servers for one test, to do with as it likes."""
    async with EmbeddedCluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def nats_server_docker() -> Iterator[DockerServer]:
    """The official image in a container, for the whole session."""
    problem = docker_problem()
    if problem is not None:
        pytest.skip(problem)
    server = DockerServer()
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(params=["embedded", pytest.param("docker", marks=pytest.mark.docker)])
def any_nats_server(request: pytest.FixtureRequest) -> Server:
    """Each server there is, in turn."""
    name = "nats_server_docker" if request.param == "docker" else "nats_server"
    server: Server = request.getfixturevalue(name)
    return server
