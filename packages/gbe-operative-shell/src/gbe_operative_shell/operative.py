"""`ShellOperative`: runs `params.command` with `sh -c`.

| param | is |
|---|---|
| `command` | what `sh -c` gets |
| `stdin` | what it reads on standard input |
| `stdin_ref` | the artifact it reads on standard input |
| any other | an environment variable, by the adapter's rules (`gbe_envoy.adapter.build_environment`) |

It runs in a private, empty directory (`GBE_WORK_DIR`), with `GBE_TASK_ID`, `GBE_TASK_NAME`, `GBE_JOB_ID` and
`GBE_ATTEMPT` set.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from gbe_envoy.adapter import DEFAULT_ALLOW, Limits
from gbe_jobs_domain.outcomes import FailureKind, TaskOutcome
from gbe_operative.contract import Execution, OperativeError
from gbe_operative_command import STDIN_PARAMS, CommandOperative

NOT_VARIABLES = STDIN_PARAMS | {"command"}
"""Params that are not put into the environment."""


class ShellOperative(CommandOperative):
    """Serves any task types with `sh -c`."""

    def __init__(
        self,
        task_types: Sequence[str] = ("shell",),
        *,
        limits: Limits | None = None,
        allow: Collection[str] = DEFAULT_ALLOW,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(task_types, limits=limits, allow=allow, environment=environment)

    async def execute(self, execution: Execution) -> TaskOutcome:
        """Run the command to its end."""
        params = execution.params
        command = params.get("command")
        if not command:
            raise OperativeError("missing param: command", kind=FailureKind.REJECTED)
        variables = {name: value for name, value in params.items() if name not in NOT_VARIABLES}
        result = await self.commands.run(execution, ("/bin/sh", "-c", command), variables)
        return await self.commands.outcome(execution, result)
