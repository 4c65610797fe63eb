"""`ScriptOperative`: runs a script file.

| param | is |
|---|---|
| `script_path` | the file; relative to the root, which it can't leave |
| `args` | its arguments: words as a shell reads them, or a JSON array |
| `interpreter` | what runs it, with options (`python3 -u`); without one the script's `#!` line says it |
| `stdin`, `stdin_ref` | what it reads: the value itself, or an artifact |
| any other | an environment variable, by the adapter's rules |

Everything about the script is checked before anything runs. It runs as a command of the shell Operative does: in a
private, empty directory, with the same variables.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from gbe_envoy.adapter import DEFAULT_ALLOW, Limits
from gbe_jobs_domain.outcomes import TaskOutcome
from gbe_operative.contract import Execution
from gbe_operative.plugin_settings import Setting, Settings, from_environment, root_of
from gbe_operative_command import STDIN_PARAMS, CommandOperative
from gbe_operative_script.arguments import arguments_of
from gbe_operative_script.script import inspect

NOT_VARIABLES = STDIN_PARAMS | {"script_path", "args", "interpreter"}
"""Params that are not put into the environment."""


class ScriptSettings(Settings, frozen=True, kw_only=True):
    """What the owner of the host decides."""

    root: Annotated[
        Path | None, Setting("The directory that scripts are in (default: where it is started)", env="GBE_SCRIPT_ROOT")
    ] = None


class ScriptOperative(CommandOperative):
    """Serves any task types with script files below `root` (default: what `GBE_SCRIPT_ROOT` names)."""

    def __init__(
        self,
        task_types: Sequence[str] = ("script",),
        *,
        root: Path | None = None,
        limits: Limits | None = None,
        allow: Collection[str] = DEFAULT_ALLOW,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(task_types, limits=limits, allow=allow, environment=environment)
        self._root = root_of("GBE_SCRIPT_ROOT", root or from_environment(ScriptSettings).root)

    async def execute(self, execution: Execution) -> TaskOutcome:
        """Check the script and run it to its end."""
        params = execution.params
        # In a thread: the root may be on a file system that has gone to sleep.
        argv = await asyncio.to_thread(self._argv, params)
        variables = {name: value for name, value in params.items() if name not in NOT_VARIABLES}
        result = await self.commands.run(execution, argv, variables)
        return await self.commands.outcome(execution, result)

    def _argv(self, params: Mapping[str, str]) -> list[str]:
        arguments = arguments_of(params.get("args", ""))
        script = inspect(self._root, params.get("script_path"), params.get("interpreter"), self.commands.path)
        return [*script.command, *arguments]
