"""`CompositeOperative`: several Operatives in one process, each for its task types."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping, Sequence

from gbe_jobs_domain.payloads import ControlKind
from gbe_operative.contract import Execution, Operative, OperativeContext, Result


class CompositeOperative(Operative):
    """Routes by task type. Two members for one type are a mistake (`ValueError`).

    `only`: of what the members handle, these types; None = all.
    """

    def __init__(self, members: Sequence[Operative], only: Collection[str] | None = None) -> None:
        self._members = tuple(members)
        self._routes: dict[str, Operative] = {}
        for member in self._members:
            for task_type in member.handles:
                if only is not None and task_type not in only:
                    continue
                if task_type in self._routes:
                    raise ValueError(f"two Operatives for task type {task_type!r}")
                self._routes[task_type] = member
        self._started: list[Operative] = []

    @property
    def handles(self) -> tuple[str, ...]:
        """Everything the members handle."""
        return tuple(self._routes)

    @property
    def slots(self) -> Mapping[str, int]:
        """As the members say."""
        return {
            task_type: slots
            for member in self._members
            for task_type, slots in member.slots.items()
            if self._routes.get(task_type) is member
        }

    def controls(self, task_type: str) -> frozenset[ControlKind]:
        """The member's business."""
        return self._routes[task_type].controls(task_type)

    async def start(self, context: OperativeContext) -> None:
        """Start all members."""
        for member in self._members:
            self._started.append(member)
            await member.start(context)

    async def close(self) -> None:
        """Close the members that were started, the last one first; one that fails does not keep the others open."""
        errors: list[Exception] = []
        while self._started:
            try:
                await self._started.pop().close()
            except Exception as error:
                errors.append(error)
        if errors:
            raise ExceptionGroup("Operatives could not be closed", errors)

    def execute(self, execution: Execution) -> Awaitable[Result] | Result:
        """The member's business."""
        return self._routes[execution.task.task_type].execute(execution)
