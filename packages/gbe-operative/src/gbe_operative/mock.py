"""`MockOperative`: outcomes as configured per task name. For tests and benchmarks."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass

from gbe_jobs_domain.edges import inline
from gbe_jobs_domain.outcomes import Completed, Failed, Skipped
from gbe_operative.contract import Execution, Operative, Result

DONE = Completed()


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a task of some name does: waits, fails so many times, raises, hangs, or ends.

    `data`: None = no data. `outcome` comes instead of a success where it is given.
    """

    output: Sequence[str] = ()
    data: object = None
    fail_times: int = 0
    error: str = "mock failure"
    exit_code: int = 1
    delay: float = 0.0
    raises: BaseException | None = None
    hang: bool = False
    outcome: Result | None = None


class MockOperative(Operative):
    """Does at once and successfully what nothing was configured for.

    `runs` counts the executions per task name, `seen` keeps the params of the last one.
    """

    def __init__(
        self, task_types: Sequence[str] = ("mock",), behaviours: Mapping[str, Behaviour] | None = None
    ) -> None:
        self._types = tuple(task_types)
        self.behaviours = dict(behaviours or {})
        self.runs: Counter[str] = Counter()
        self.seen: dict[str, Mapping[str, str]] = {}
        self.started = asyncio.Event()
        """Set by each execution that hangs or waits, for tests to await."""

    @property
    def handles(self) -> tuple[str, ...]:
        """As given."""
        return self._types

    def execute(self, execution: Execution) -> Awaitable[Result] | Result:
        """As configured for the task's name."""
        if not self.behaviours:
            return DONE
        name = execution.task.task_name
        behaviour = self.behaviours.get(name)
        if behaviour is None:
            return DONE
        self.runs[name] += 1
        self.seen[name] = execution.params
        if behaviour.hang or behaviour.delay:
            return self._slowly(execution, behaviour)
        return _end(execution, behaviour)

    async def _slowly(self, execution: Execution, behaviour: Behaviour) -> Result:
        self.started.set()
        if behaviour.hang:
            await asyncio.Event().wait()
        await asyncio.sleep(behaviour.delay)
        return _end(execution, behaviour)


def _end(execution: Execution, behaviour: Behaviour) -> Result:
    if behaviour.raises is not None:
        raise behaviour.raises
    if execution.attempt <= behaviour.fail_times:
        return Failed(error=behaviour.error, exit_code=behaviour.exit_code)
    if behaviour.outcome is not None:
        return behaviour.outcome
    data = None if behaviour.data is None else inline(behaviour.data)
    return Completed(output=list(behaviour.output), data=data)


def skip(reason: str) -> Behaviour:
    """A task that is skipped."""
    return Behaviour(outcome=Skipped(reason))
