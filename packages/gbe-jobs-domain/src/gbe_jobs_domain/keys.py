"""The keys of a job document: those that work, those that are reserved, and what people write instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

TASK_KEYS: Final = (
    "name",
    "task_type",
    "depends_on",
    "input_from",
    "params",
    "timeout_secs",
    "max_retries",
    "retry",
    "on_lost",
    "input_schema",
    "output_schema",
)
LOCAL_KEYS: Final = ("app", "operatives")
"""Of the section `local`, which says how a job is served that is run on one host with everything brought along."""
RETRY_KEYS: Final = ("delay", "factor", "max_delay")

_RESERVED_IN_JOB: Final = frozenset(
    {
        "concurrency",
        "deadline_secs",
        "defaults",
        "description",
        "finally",
        "include",
        "inputs",
        "labels",
        "on_failure",
        "outputs",
        "priority",
        "schedule",
    }
)
_RESERVED_IN_TASK: Final = frozenset(
    {
        "cache",
        "concurrency",
        "deadline_secs",
        "description",
        "finally",
        "foreach",
        "labels",
        "matrix",
        "on_failure",
        "output",
        "outputs",
        "priority",
        "resources",
        "when",
    }
)


@dataclass(frozen=True, slots=True)
class Form:
    """One way to write a job. `foreign`: keys of the other form, with what to write here."""

    title: str
    name: str
    tasks: str
    task_type: str
    foreign: dict[str, str]
    reserved: frozenset[str] = _RESERVED_IN_JOB
    reserved_in_task: frozenset[str] = _RESERVED_IN_TASK

    @property
    def keys(self) -> tuple[str, ...]:
        """Of the document."""
        return (self.name, "job_type", "org", "vars", "v", self.tasks, "output", "fail_fast", "local")

    @property
    def task_keys(self) -> tuple[str, ...]:
        """Of a task."""
        return tuple(self.task_type if key == "task_type" else key for key in TASK_KEYS)


JOB: Final = Form("job", "name", "tasks", "task_type", {"molecule": "name", "steps": "tasks", "operative": "task_type"})
MOLECULE: Final = Form(
    "molecule", "molecule", "steps", "operative", {"name": "molecule", "tasks": "steps", "task_type": "operative"}
)

IN_PARAMS: Final = frozenset({"args", "body", "cmd", "command", "env", "environment", "run", "script", "url", "with"})
"""Task keys that other systems have; here such things are params."""

SYNONYMS: Final = {
    "after": "depends_on",
    "dependencies": "depends_on",
    "depends": "depends_on",
    "needs": "depends_on",
    "requires": "depends_on",
    "id": "name",
    "type": "task_type",
    "uses": "task_type",
    "timeout": "timeout_secs",
    "retries": "max_retries",
    "inputs": "input_from",
    "parameters": "params",
    "jobs": "tasks",
    "variables": "vars",
    "version": "v",
    "organisation": "org",
    "organization": "org",
}
"""What other systems call it. Used where the key on the right is allowed."""
