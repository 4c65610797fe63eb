"""An Operative for the task type `bulk`: each task's data is 100 kB. The worker is the real one."""

from __future__ import annotations

from gbe_jobs_domain.edges import inline
from gbe_jobs_domain.outcomes import Completed, TaskOutcome
from gbe_operative.contract import Execution, Operative
from gbe_operative.worker import Worker
from gbe_runtime.command import role_command
from gbe_runtime.connection import connect_bus
from gbe_runtime.lifecycle import Role
from gbe_runtime.settings import BusSettings

SIZE = 100_000
DONE = Completed(data=inline("x" * SIZE))


class BulkOperative(Operative):
    """Checks what it gets and hands on as much."""

    @property
    def handles(self) -> tuple[str, ...]:
        return ("bulk",)

    def execute(self, execution: Execution) -> TaskOutcome:
        assert all(len(value) == SIZE for value in execution.params.values()), "the input came through whole"
        return DONE


async def _make(settings: BusSettings) -> Role:
    return Worker(await connect_bus(settings, name="bulk"), BulkOperative(), {"bulk": 16}, close_transport=True)


if __name__ == "__main__":
    raise SystemExit(role_command(BusSettings, _make, name="gbe-bulk", description="100 kB a task.", use_uvloop=True))
