"""`AssertOperative`: runs a command and compares what it does with what was expected.

| param | is |
|---|---|
| `command` | what `sh -c` gets |
| `expect_exit_code` | default 0 |
| `expect_stdout`, `expect_stderr` | the whole output; one newline at the end does not count, on either side |
| `…_contains` | a text in it |
| `…_regex` | a pattern that `re.search` finds in it |
| `…_json` | JSON that it has: of objects the named keys, arrays item by item |
| `stdin`, `stdin_ref` | what the command reads |
| any other | an environment variable |

Everything that is expected has to be so; what is not is the error, all of it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from gbe_envoy.adapter import DEFAULT_ALLOW, Command, CommandError, CommandResult, Limits
from gbe_jobs_domain.edges import Ref
from gbe_jobs_domain.outcomes import Completed, Failed, FailureKind, TaskOutcome
from gbe_operative.contract import Execution, OperativeError
from gbe_operative.plugin_settings import Setting, Settings, from_environment
from gbe_operative_assert import checks
from gbe_operative_assert.checks import Match, complaints
from gbe_operative_assert.expectations import Expected, expected_of, is_expectation
from gbe_operative_command import STDIN_PARAMS, CommandOperative
from gbe_operative_command.outcome import data_of, error_of

NOT_VARIABLES = STDIN_PARAMS | {"command"}
"""Params that are not put into the environment, besides all that begin with `expect`."""

AT_ONCE = 256 * 1024
"""Characters of what is expected, and bytes of output, up to which it is compared on the spot."""

ERROR_CHARACTERS = 12_000
"""Of the text of an error, at most; a diff may be long."""


class AssertSettings(Settings, frozen=True, kw_only=True):
    """What the owner of the host decides."""

    check_timeout: Annotated[
        float,
        msgspec.Meta(gt=0, le=3600),
        Setting("Seconds that comparing a large output, or looking for a pattern, may take", env="GBE_ASSERT_TIMEOUT"),
    ] = 10.0


class AssertOperative(CommandOperative):
    """Serves any task types with `sh -c` and a comparison."""

    def __init__(
        self,
        task_types: Sequence[str] = ("assert",),
        *,
        check_timeout: float | None = None,
        limits: Limits | None = None,
        allow: Collection[str] = DEFAULT_ALLOW,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(task_types, limits=limits, allow=allow, environment=environment)
        self._timeout = check_timeout or from_environment(AssertSettings).check_timeout

    async def execute(self, execution: Execution) -> TaskOutcome:
        """Run the command to its end, and compare."""
        params = execution.params
        command = params.get("command")
        if not command:
            raise OperativeError("missing param: command", kind=FailureKind.REJECTED)
        expected = expected_of(params)
        variables = {
            name: value for name, value in params.items() if name not in NOT_VARIABLES and not is_expectation(name)
        }
        result = await self.commands.run(execution, ("/bin/sh", "-c", command), variables)
        try:
            found = [] if _cut_short(result) else await self._compare(execution, expected, result)
        except BaseException:
            if result.spill is not None:
                await asyncio.to_thread(result.spill.unlink, missing_ok=True)
            raise
        as_command = await self.commands.outcome(execution, result)
        return as_command if _cut_short(result) else _judged(as_command, result, found)

    async def _compare(self, execution: Execution, expected: Expected, result: CommandResult) -> list[str]:
        """The complaints."""
        found = []
        if result.exit_code != expected.exit_code:
            stderr = result.stderr.decode("utf-8", "replace")
            said = error_of(result, stderr if execution.masker is None else execution.masker.excerpt(stderr))
            detail = "" if said == f"exit code {result.exit_code}" else f"\n{said}"
            found.append(f"exit code {result.exit_code}, expected {expected.exit_code}{detail}")
        if not expected.outputs:
            return found
        small = result.spill is None and sum(len(each.value) for each in expected.outputs) <= AT_ONCE
        if small and not any(each.match is Match.REGEX for each in expected.outputs):
            compared = complaints(expected.outputs, {"stdout": result.stdout, "stderr": result.stderr})
        else:
            compared = await self._compare_aside(execution, expected, result, result.spill)
        if compared and result.stderr_size > len(result.stderr):
            compared.append(
                f"(of {result.stderr_size:,} bytes of stderr the last {len(result.stderr):,} were compared; "
                "2>&1 in the command makes them stdout, which is kept whole)"
            )
        return found + compared

    async def _compare_aside(
        self, execution: Execution, expected: Expected, result: CommandResult, spill: Path | None
    ) -> list[str]:
        """In a process of its own: it may take too long, or too much memory."""
        stdout = {"text": result.stdout.decode("latin-1")} if spill is None else {"file": str(spill)}
        order = {
            "expectations": [(each.stream, each.match.value, each.value) for each in expected.outputs],
            "stdout": stdout,
            "stderr": {"text": result.stderr.decode("latin-1")},
        }
        # Without site packages: a third of the start. The file is a script then, and imports nothing of ours.
        argv = (sys.executable, "-I", "-S", checks.__file__)
        try:
            answer = await self.commands.runner.run(
                Command(argv, {"PATH": self.commands.path}, "/", json.dumps(order).encode()),
                timeout=self._timeout,
                cancel=execution.cancelled,
            )
        except CommandError as error:
            raise OperativeError(f"the output can't be compared: {error}") from error
        if answer.cancelled:
            raise OperativeError("cancelled", kind=FailureKind.CANCELLED)
        if answer.timed_out:
            patterns = [each.value[:80] for each in expected.outputs if each.match is Match.REGEX]
            hint = f": a pattern may take for ever: {', '.join(map(repr, patterns))}" if patterns else ""
            raise OperativeError(f"the output was not compared within {self._timeout:g} s{hint}", retryable=False)
        if answer.exit_code != 0:
            said = answer.stderr.decode("utf-8", "replace").strip()[-500:]
            raise OperativeError(f"the output can't be compared: {answer.signal or said or answer.exit_code}")
        found: list[str] = json.loads(answer.stdout)
        return found


def _cut_short(result: CommandResult) -> bool:
    """Whether the command was ended before it could show anything."""
    return result.cancelled or result.output_limit


def _judged(as_command: TaskOutcome, result: CommandResult, found: list[str]) -> TaskOutcome:
    """The outcome: what the shell Operative would make of the command, success being what was expected."""
    assert isinstance(as_command, Completed | Failed)
    output, stderr, data = as_command.output, as_command.stderr, as_command.data
    ref = data if isinstance(data, Ref) else None
    if found:
        error = "\n\n".join(found)
        if len(error) > ERROR_CHARACTERS:
            error = error[:ERROR_CHARACTERS] + "\n…"
        return Failed(error=error, exit_code=result.exit_code or 1, stderr=stderr, output=output, data=ref)
    return Completed(
        output=output,
        stderr=stderr,
        data=data or data_of(result.stdout, output),
        result_ref=None if ref is None else ref.uri,
    )
