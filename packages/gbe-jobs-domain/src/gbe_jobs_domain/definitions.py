"""`JobDefinition` and `TaskDefinition`: the job document (architecture section 9) as a model.

This is the canonical form that travels: variables substituted, the molecule form turned into the job form, scalars
made strings. Documents as people write them are read by `documents.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from msgspec import Meta, Struct

from gbe_jobs_domain.ids import DEFAULT_ORG, OrgId, TaskName, TypeName
from gbe_jobs_domain.payloads import OnLost, OptionalRaw, Param, RetryPolicy, Seconds

MAX_TASKS = 100_000
"""Tasks in one job."""

MAX_RETRIES = 1_000
MAX_JOB_NAME = 200
"""Characters in a job's name; all printable."""


Output: TypeAlias = str | dict[str, str] | None


class TaskDefinition(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One task. The Oracle reads `name`, `task_type`, `depends_on` and which tasks `input_from` names; everything else
    is between the job's author and the Operative (mission document "ecumene roles").

    `input_schema`, `output_schema`: JSON Schemas of the resolved params and of the data, see `data_schemas`."""

    name: TaskName
    task_type: TypeName
    depends_on: list[TaskName] = []
    input_from: dict[str, str] = {}
    params: dict[str, Param] = {}
    timeout_secs: Seconds | None = None
    max_retries: Annotated[int, Meta(ge=0, le=MAX_RETRIES)] = 0
    retry: RetryPolicy | None = None
    on_lost: OnLost = OnLost.RERUN
    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None


class JobDefinition(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A job as it is submitted. `output`: what a molecule hands on, a reference or names with references; None = all
    results by task name. `fail_fast`: whether the first failure ends the job, or what does not depend on it goes on."""

    name: str
    job_type: TypeName
    tasks: list[TaskDefinition]
    org: OrgId = DEFAULT_ORG
    v: int = 1
    output: Output = None
    fail_fast: bool = True


class TaskOutline(Struct, frozen=True, omit_defaults=True, gc=False):
    """`TaskDefinition` as the Oracle reads it: what it passes through stays bytes."""

    name: TaskName
    task_type: TypeName
    depends_on: list[str] = []
    input_from: dict[str, str] = {}
    params: OptionalRaw = None
    timeout_secs: float | None = None
    max_retries: int = 0
    retry: OptionalRaw = None
    on_lost: str = "rerun"
    input_schema: OptionalRaw = None
    output_schema: OptionalRaw = None


class JobOutline(Struct, frozen=True):
    """`JobDefinition` as the Oracle reads it."""

    name: str
    job_type: TypeName
    tasks: list[TaskOutline]
    org: OrgId = DEFAULT_ORG
    v: int = 1
    output: Output = None
    fail_fast: bool = True


def output_references(output: Output) -> dict[str, str]:
    """The references of a definition's `output` by name; one without a name is under the empty name."""
    if output is None:
        return {}
    return {"": output} if isinstance(output, str) else output


def upstream_of(reference: str) -> str:
    """The task that a reference of `input_from` or `output` names: everything before the first dot."""
    return reference.split(".", 1)[0]
