"""`Capabilities`: what an implementation offers beyond the contract, by name, and the hooks for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the suite may ask of the implementation under test. A scenario that needs more is reported as skipped.

    `restart`: the bus can be killed and started again with its data; the subclass gives the fixture `faults`.
    `cluster`: killing is the loss of one member only, and everything goes on before it is back.
    `flip_byte`: the subclass overrides `flip_byte`.
    `ttl_resolution`: seconds; a state entry's shortest time to live, and how much later it may end.
    `patience`: seconds after which something that should happen counts as not happening.
    `quiet`: seconds without an event that count as "does not happen".
    `tick`: seconds; the unit of waits and delays in scenarios that measure them; large against the time of a call.
    `big`: bytes of the large artifact.
    """

    restart: bool = False
    cluster: bool = False
    flip_byte: bool = False
    ttl_resolution: float = 1.0
    patience: float = 5.0
    quiet: float = 0.1
    tick: float = 0.25
    big: int = 64 * 1024 * 1024


class Faults(Protocol):
    """How a subclass with `restart` breaks its bus."""

    async def kill(self, stream: str) -> None:
        """End the bus as a crash would (with `cluster`: the member that leads `stream`)."""

    async def restart(self) -> None:
        """Bring back what was killed, with its data; returns when it answers."""
