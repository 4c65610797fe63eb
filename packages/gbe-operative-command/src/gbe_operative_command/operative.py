"""`CommandOperative`: what all Operatives have in common whose tasks are commands."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from gbe_envoy.adapter import DEFAULT_ALLOW, Limits
from gbe_operative.contract import Operative, OperativeContext
from gbe_operative_command.commands import TaskCommands


class CommandOperative(Operative):
    """Has task types and `commands`, which start and end with it; `execute` is its heirs' business."""

    def __init__(
        self,
        task_types: Sequence[str],
        *,
        limits: Limits | None = None,
        allow: Collection[str] = DEFAULT_ALLOW,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._types = tuple(task_types)
        self.commands = TaskCommands(limits=limits, allow=allow, environment=environment)

    @property
    def handles(self) -> tuple[str, ...]:
        """As given."""
        return self._types

    async def start(self, context: OperativeContext) -> None:
        """Start the guardian, which ends the commands of a worker that was killed."""
        await self.commands.start(context)

    async def close(self) -> None:
        """End what still runs."""
        await self.commands.close()
