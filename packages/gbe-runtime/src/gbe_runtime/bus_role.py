"""`BusRole`: a role with a connection to the bus, which says that it is there."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gbe_nexus import NexusError, Transport, Unavailable, encode_payload, now_ms
from gbe_runtime.errors import describe
from gbe_runtime.identity import host_name, new_identity
from gbe_runtime.lifecycle import Role
from gbe_runtime.lifecycle_payloads import LifecycleKind, LifecyclePayload, lifecycle_subject

T = TypeVar("T")

log = logging.getLogger(__name__)

HEARTBEAT_INTERVAL = 5.0
START_PATIENCE = 30.0
"""Seconds for which a start asks again where nobody answers: longer than an election takes."""
PATIENCE_PAUSE = 0.5
ANNOUNCE_TIMEOUT = 2.0
"""Seconds a start or stop waits at most for its announcement to be stored."""


class BusRole(Role):
    """Publishes `started`, `stopped`, `degraded` (best effort: never a reason to fail) and heartbeats (hints).

    The transport belongs to whoever made it, unless `close_transport` hands it over: then it is closed at the
    end of the stop, also of a role that never started.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        heartbeat_interval: float = HEARTBEAT_INTERVAL,
        close_transport: bool = False,
    ) -> None:
        super().__init__()
        self.transport = transport
        self.identity = new_identity(self.name)
        self.heartbeat_interval = heartbeat_interval
        self.started_at = 0
        self.__announced = False
        self.__degraded: str | None = None
        self.__count = 0
        if close_transport:
            self.on_stop(self.__close_transport)

    def degrade(self, reason: str | None) -> None:
        """Say that the role works, but not as it should (None: again as it should). Said when it changes."""
        if reason == self.__degraded:
            return
        self.__degraded = reason
        if reason is None:
            log.info("%s works as it should again", self.name)
            return
        log.warning("%s is degraded: %s", self.name, reason)
        if self.__announced and not self.ending:
            self.spawn(self.__announce("degraded", reason), "announce degraded")

    async def patiently(self, action: Callable[[], Awaitable[T]], patience: float = START_PATIENCE) -> T:
        """Do what a start needs of the bus, again and again while nobody answers.

        A stream of a cluster has no leader for a while after a member died: no reason for a role to end that is
        started in that moment. Raises `Unavailable` when `patience` seconds are over, any other error at once.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        while True:
            try:
                return await action()
            except Unavailable as error:
                if loop.time() >= until:
                    raise
                log.warning("%s can't start yet: %s", self.name, error)
                await asyncio.sleep(PATIENCE_PAUSE)

    def lifecycle_payload(self, reason: str | None = None) -> LifecyclePayload:
        """What this role would say of itself now."""
        return LifecyclePayload(
            identity=self.identity,
            role=self.name,
            host=host_name(),
            pid=os.getpid(),
            version=release(),
            started_at=self.started_at,
            heartbeat_interval=self.heartbeat_interval,
            capabilities=self.capabilities(),
            load={**self.metrics.snapshot(), **self.load()},
            reason=reason,
        )

    async def _announce_start(self) -> None:
        self.started_at = now_ms()
        self.__announced = True
        await self.__announce("started", self.__degraded)
        self.spawn(self.__beat(), "heartbeat")

    async def _announce_stop(self) -> None:
        if self.__announced:
            await self.__announce("stopped", None if self.failure is None else describe(self.failure))

    async def __announce(self, kind: LifecycleKind, reason: str | None) -> None:
        event_id = self.__event_id(kind)
        try:
            body = encode_payload(event_id, self.lifecycle_payload(reason))
            async with asyncio.timeout(ANNOUNCE_TIMEOUT):
                await self.transport.publish(lifecycle_subject(self.name, kind), body, msg_id=event_id)
        except (NexusError, TimeoutError) as error:
            log.info("%s could not announce %r: %s", self.name, kind, str(error) or "no answer in time")
        except Exception:  # capabilities() or load() of a subclass: worth a look, not worth a role
            log.exception("%s could not say that it is %s", self.name, kind)

    async def __beat(self) -> None:
        subject = lifecycle_subject(self.name, "heartbeat")
        while True:
            await asyncio.sleep(self.heartbeat_interval)
            try:
                self.transport.hint(
                    subject, encode_payload(self.__event_id("heartbeat"), self.lifecycle_payload(self.__degraded))
                )
            except NexusError as error:
                log.debug("%s: no heartbeat: %s", self.name, error)
            except Exception:  # the same, of lifecycle_payload()
                log.exception("%s could not make its heartbeat", self.name)

    def __event_id(self, kind: LifecycleKind) -> str:
        self.__count += 1
        return f"{self.identity}:{kind}:{self.__count}"

    async def __close_transport(self) -> None:
        await self.transport.close()


@functools.cache
def release() -> str:
    """The version of this release: all distributables carry the same."""
    from importlib.metadata import version

    return version("gbe-runtime")
