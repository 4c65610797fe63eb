"""`TemplateOperative`: renders a Jinja template.

| param | is |
|---|---|
| `template` | the template itself |
| `template_path` | or the file it is in; relative to the root, which it can't leave |
| `output_path` | a file that the text is written to, as a whole or not at all |
| any other | a variable |

Variables, the later ones counting more: `org` (the organisation without `org_`), `org_id`, `job_id`, `task_id`,
`task_name`, `attempt`; the job's variables, also as `vars`; the params, also as `params`.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from gbe_envoy.adapter import CommandRunner
from gbe_jobs_domain.edges import inline
from gbe_jobs_domain.outcomes import Completed, FailureKind, TaskOutcome
from gbe_jobs_domain.suggestions import Suggester
from gbe_operative.contract import Execution, Operative, OperativeContext, OperativeError
from gbe_operative.plugin_settings import Setting, Settings, from_environment, root_of
from gbe_operative.rooted import PathError, Root
from gbe_operative_template.messages import Answer, Order
from gbe_operative_template.renderer import Renderer

MAX_TEMPLATE = 4 << 20
"""Bytes of a template."""

NOT_VARIABLES = frozenset({"template", "template_path", "output_path", "vars"})
"""Params that are no variables of their own."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#][^\s]*\Z")
_variables = msgspec.json.Decoder(dict[str, Any]).decode


class TemplateSettings(Settings, frozen=True, kw_only=True):
    """What the owner of the host decides."""

    root: Annotated[
        Path | None,
        Setting("The directory that templates are in (default: where it is started)", env="GBE_TEMPLATE_ROOT"),
    ] = None
    output_root: Annotated[
        Path | None,
        Setting("The directory that texts are written to (default: that of templates)", env="GBE_TEMPLATE_OUTPUT_ROOT"),
    ] = None
    timeout: Annotated[
        float, msgspec.Meta(gt=0, le=3600), Setting("Seconds that rendering may take", env="GBE_TEMPLATE_TIMEOUT")
    ] = 10.0
    max_bytes: Annotated[
        int, msgspec.Meta(ge=1, le=1 << 30), Setting("Bytes of the largest text", env="GBE_TEMPLATE_MAX_BYTES")
    ] = 16 << 20
    memory: Annotated[
        int,
        msgspec.Meta(ge=16 << 20, le=1 << 40),
        Setting("Bytes of memory that rendering may take", env="GBE_TEMPLATE_MEMORY"),
    ] = 256 << 20


class TemplateOperative(Operative):
    """Serves any task types with templates. `settings`: default, what the environment says."""

    def __init__(self, task_types: Sequence[str] = ("template",), *, settings: TemplateSettings | None = None) -> None:
        self._types = tuple(task_types)
        self._settings = settings or from_environment(TemplateSettings)
        self._root = root_of("GBE_TEMPLATE_ROOT", self._settings.root)
        self._output_root = (
            root_of("GBE_TEMPLATE_OUTPUT_ROOT", self._settings.output_root)
            if self._settings.output_root
            else self._root
        )
        self._runner: CommandRunner | None = None
        self._renderer: Renderer | None = None

    @property
    def handles(self) -> tuple[str, ...]:
        """As given."""
        return self._types

    async def start(self, context: OperativeContext) -> None:
        """Start the guardian, and what processes that render are forked from."""
        runner = CommandRunner(spill_dir=context.work_root)
        await runner.start()
        runner.guard_path(context.work_root)
        self._runner = runner
        self._renderer = Renderer(runner)
        self._renderer.warm_up()

    async def close(self) -> None:
        """End what still renders."""
        if self._renderer is not None:
            await self._renderer.close()
            self._renderer = None
        if self._runner is not None:
            await self._runner.close()
            self._runner = None

    async def execute(self, execution: Execution) -> TaskOutcome:
        """Render, and write the text where it is wanted."""
        if self._renderer is None:
            raise RuntimeError("the TemplateOperative was not started")
        params = execution.params
        order = await self._order(execution)
        text = _text_of(await self._renderer.render(order, self._settings.timeout), order)
        data: dict[str, object] = {"text": text}
        if _URL.match(text.strip()):
            data["url"] = text.strip()
        if (output_path := params.get("output_path")) is not None:
            content = text.encode()
            # A text with secrets in it is for its owner alone, unless the file is there and says otherwise.
            mode = 0o644 if execution.masker is None else 0o600
            written = await asyncio.to_thread(_write, self._output_root, output_path, content, mode)
            data |= {"path": str(written), "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        return Completed(output=text.removesuffix("\n").split("\n") if text else [], data=inline(data))

    async def _order(self, execution: Execution) -> Order:
        params = execution.params
        template, path = params.get("template"), params.get("template_path")
        if template is None and path is None:
            raise _rejected("missing param: template, or template_path")
        if template is not None and path is not None:
            raise _rejected("both template and template_path are given")
        name, directory = "template", None
        if path is not None:
            # In a thread: the root may be on a file system that has gone to sleep.
            template, name, directory = await asyncio.to_thread(_read, self._root, path)
        assert template is not None
        if len(template) > MAX_TEMPLATE:
            raise _rejected(f"param 'template': {len(template):,} characters, the limit is {MAX_TEMPLATE:,}")
        return Order(
            template=template,
            name=name,
            directory=directory,
            root=None if self._root.path is None else str(self._root.path),
            variables=variables_of(execution),
            max_bytes=self._settings.max_bytes,
            memory=self._settings.memory,
        )


def variables_of(execution: Execution) -> dict[str, object]:
    """What a template can use. Raises `OperativeError` (rejected) where the param `vars` is no JSON object."""
    task, params = execution.task, execution.params
    job: Mapping[str, object] = {}
    if "vars" in params:
        try:
            job = _variables(params["vars"])
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise _rejected(f"param 'vars': expected a JSON object of variables: {error}") from error
    return {
        "org": task.org_id.removeprefix("org_"),
        "org_id": task.org_id,
        "job_id": task.job_id,
        "task_id": task.task_id,
        "task_name": task.task_name,
        "attempt": execution.attempt,
        "params": dict(params),
        "vars": job,
        **job,
        **{name: value for name, value in params.items() if name not in NOT_VARIABLES},
    }


def _read(root: Root, path: str) -> tuple[str, str, str]:
    """The template, its name and its directory."""
    try:
        with root.open(path) as file:
            return file.read(MAX_TEMPLATE).decode(), str(file.path), str(file.path.parent)
    except PathError as error:
        raise _rejected(f"template_path {error}") from error
    except UnicodeDecodeError as error:
        raise _rejected(f"template_path {path!r}: it is not UTF-8: byte {error.start}") from error


def _write(root: Root, path: str, content: bytes, mode: int) -> Path:
    try:
        return root.write(path, content, mode=mode)
    except PathError as error:
        if isinstance(error.__cause__, OSError):  # a full disk, say: it may be better another time
            raise OperativeError(f"output_path {error}") from error
        raise _rejected(f"output_path {error}") from error


def _text_of(answer: Answer, order: Order) -> str:
    if "error" not in answer:
        return answer["text"]
    error = answer["error"]
    if answer.get("kind") == "syntax":
        raise _rejected(error)
    if missing := answer.get("undefined"):
        hint = Suggester().hint(missing, order["variables"])
        error = f"{error}; {hint}" if hint else error
    raise OperativeError(error, retryable=False)


def _rejected(message: str) -> OperativeError:
    return OperativeError(message, kind=FailureKind.REJECTED)
