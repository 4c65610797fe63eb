"""`PythonOperative`: a task is a module, run as `python -m <package>.<module> --key value …`.

| param | is |
|---|---|
| `module` | the module in the package; without it, the task type with `_` for `-` |
| `stdin`, `stdin_ref` | what it reads: the value itself, or an artifact |
| `<name>_ref` | an artifact: `--<name>_ref` and the file it was fetched into |
| a secret | an environment variable of its name: everybody on the host can read a command line |
| any other | `--<name> <value>`; `--<name>=<value>` where the value begins with `-`: none is taken for an option |

stdout is the task's output; the result is what the module writes to the descriptor `GBE_RESULT_FD` as JSON.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from gbe_envoy.adapter import DEFAULT_ALLOW, CommandResult, Limits
from gbe_jobs_domain.edges import EdgeData, Inline
from gbe_jobs_domain.outcomes import Completed, Failed, FailureKind, TaskOutcome
from gbe_operative.contract import Execution, OperativeError
from gbe_operative.plugin_settings import ConfigurationError, Setting, Settings, from_environment
from gbe_operative_command import STDIN_PARAMS, CommandOperative
from gbe_operative_command.outcome import JSON, JSON_LIMIT
from gbe_operative_command.stdin import fetched
from gbe_operative_python.module_names import InvalidModule, check_package, module_of
from gbe_operative_python.results import VARIABLE

NOT_ARGUMENTS = STDIN_PARAMS | {"module"}

RESULT_FD = 3
INLINE_BYTES = 1 << 20
"""A larger result is not read into memory."""
VALUE_BYTES = 96 * 1024
"""The largest value of a param, in bytes: Linux takes 128 KiB in one argument."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}\Z")
# What runpy says, in one line and nothing else, before anything of the module is run.
_NO_MODULE = re.compile(r"[^\n]*: (No module named [^\n]+|Error while finding module specification for [^\n]+)\n\Z")


class PythonSettings(Settings, frozen=True, kw_only=True):
    """What the owner of the host decides."""

    package: Annotated[str, Setting("The package that has the modules", env="GBE_PYTHON_PACKAGE")] = "gbe_tasks"
    path: Annotated[
        str | None,
        Setting("Where it is, besides what is installed (default: where it is started)", env="GBE_PYTHON_PATH"),
    ] = None
    interpreter: Annotated[
        str | None,
        Setting("The Python, 3.11 or newer, that runs them (default: its own)", env="GBE_PYTHON_INTERPRETER"),
    ] = None


class PythonOperative(CommandOperative):
    """Serves any task types with the modules of one package.

    What is not given is as the variables `GBE_PYTHON_PACKAGE`, `GBE_PYTHON_PATH` (directories, separated by `:`) and
    `GBE_PYTHON_INTERPRETER` say. Raises `ConfigurationError`.
    """

    def __init__(
        self,
        task_types: Sequence[str] = ("python",),
        *,
        package: str | None = None,
        path: Sequence[Path] | None = None,
        interpreter: str | None = None,
        limits: Limits | None = None,
        allow: Collection[str] = DEFAULT_ALLOW,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        settings = from_environment(PythonSettings, environment)
        try:
            self._package = check_package(package or settings.package)
        except InvalidModule as error:
            raise ConfigurationError(f"GBE_PYTHON_PACKAGE: {error}") from error
        places = (
            [str(place) for place in path] if path is not None else (settings.path or os.getcwd()).split(os.pathsep)
        )
        for place in places:
            if not os.path.isdir(place):
                raise ConfigurationError(f"GBE_PYTHON_PATH: {place!r} is not a directory")
        self._path = os.pathsep.join(os.path.abspath(place) for place in places)
        self._interpreter = interpreter or settings.interpreter or sys.executable
        super().__init__(task_types, limits=limits, allow=allow, environment=environment)

    async def execute(self, execution: Execution) -> TaskOutcome:
        """Run the module to its end."""
        try:
            module = module_of(self._package, execution.task.task_type, execution.params.get("module"))
        except InvalidModule as error:
            raise OperativeError(str(error), kind=FailureKind.REJECTED) from error
        secret = _secrets_of(execution)
        arguments = await _arguments(execution, secret)
        # -P: the module is looked for where it should be, not in the directory it runs in. -u: its lines come at once.
        argv = (self._interpreter, "-P", "-u", "-m", module, *arguments)
        extra = {VARIABLE: str(RESULT_FD), "PYTHONPATH": self._path}
        with tempfile.NamedTemporaryFile(dir=execution.work_dir, prefix="result-") as result_file:
            result = await self.commands.run(execution, argv, secret, extra=extra, pass_fds=(result_file.fileno(),))
            outcome = await self.commands.outcome(execution, result)
            if isinstance(outcome, Failed):
                return self._explained(outcome, result, module, named="module" in execution.params)
            assert isinstance(outcome, Completed)
            data = await _result(execution, Path(result_file.name))
        return msgspec.structs.replace(outcome, data=data)

    def _explained(self, failed: Failed, result: CommandResult, module: str, *, named: bool) -> Failed:
        """Python's own complaint about a module that is not there, in our words."""
        stderr = failed.stderr
        if result.exit_code != 1 or not _NO_MODULE.match(stderr):
            return failed
        return msgspec.structs.replace(
            failed,
            error=f"no module {module} is there to run, neither installed for {self._interpreter} nor in {self._path} "
            "(GBE_PYTHON_PACKAGE, GBE_PYTHON_PATH)"
            + ("" if named else "; the task type gave its name, for there is no param 'module'"),
            kind=FailureKind.REJECTED,
        )


def _secrets_of(execution: Execution) -> dict[str, str]:
    """The params in which there is a secret."""
    if execution.masker is None:
        return {}
    return {name: value for name, value in execution.params.items() if execution.mask(value) != value}


async def _arguments(execution: Execution, elsewhere: Collection[str]) -> list[str]:
    """The command line after the module, without what goes `elsewhere`. Raises `OperativeError` (rejected)."""
    arguments: list[str] = []
    for name, value in execution.params.items():
        if name in NOT_ARGUMENTS or name in elsewhere:
            continue
        if not _NAME.match(name):
            raise OperativeError(
                f"param {name[:128]!r}: can't be an option: a name has letters, digits, - and _",
                kind=FailureKind.REJECTED,
            )
        ref = execution.refs.get(name)
        if ref is not None:
            value = str(await fetched(execution, name, ref, execution.work_dir / name))  # noqa: PLW2901
        size = len(value.encode("utf-8", "replace"))
        if size > VALUE_BYTES:
            raise OperativeError(
                f"param {name!r}: {size} bytes are too large for an argument (limit {VALUE_BYTES}); use {name}_ref",
                kind=FailureKind.REJECTED,
            )
        if "\0" in value:
            raise OperativeError(
                f"param {name!r}: contains a NUL byte, which no argument can", kind=FailureKind.REJECTED
            )
        arguments += [f"--{name}={value}"] if value.startswith("-") else [f"--{name}", value]
    return arguments


async def _result(execution: Execution, file: Path) -> EdgeData:
    """What the module wrote; null where it wrote nothing. Raises `OperativeError` where that is no JSON."""
    raw = await asyncio.to_thread(_read_result, file)
    if isinstance(raw, Inline):
        return raw
    ref = await execution.spill(file, "data.json", JSON)
    return msgspec.structs.replace(ref, items=raw)


def _read_result(file: Path) -> Inline | int | None:
    """The result; of a large one only how many items it has, if it is an array. Blocks."""
    size = file.stat().st_size
    if size > JSON_LIMIT:
        raise OperativeError(
            f"the result of {size} bytes is larger than {JSON_LIMIT} bytes; print it, or write a file", retryable=False
        )
    content = file.read_bytes().strip() or b"null"
    try:
        value = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise OperativeError(f"the result is no JSON: {error}: {content[:80]!r}", retryable=False) from error
    items = len(value) if isinstance(value, list) else None
    return Inline(msgspec.Raw(content), items) if size <= INLINE_BYTES else items
