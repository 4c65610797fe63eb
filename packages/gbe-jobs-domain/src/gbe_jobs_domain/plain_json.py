"""The short way for large documents: JSON in the job form with nothing wrong and nothing to substitute.

Whatever is not exactly that is left to the reader, which gives the same definition or says what is wrong and where.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from gbe_jobs_domain import dag, molecules
from gbe_jobs_domain.definitions import MAX_RETRIES, JobDefinition, TaskDefinition
from gbe_jobs_domain.ids import DEFAULT_ORG, OrgId, TaskName, TypeName
from gbe_jobs_domain.payloads import OnLost, RetryPolicy, Seconds, SecretRef
from gbe_jobs_domain.reader import slug
from gbe_jobs_domain.schema_files import SchemaFiles
from gbe_jobs_domain.variables import refers

_ParamName = Annotated[str, Meta(min_length=1, max_length=128)]
_Scalar = str | bool | int | float | SecretRef


class _Task(Struct, forbid_unknown_fields=True):
    name: TaskName
    task_type: TypeName
    depends_on: list[str] = []
    input_from: dict[_ParamName, str] = {}
    params: dict[_ParamName, _Scalar] = {}
    timeout_secs: Seconds | UnsetType = UNSET
    max_retries: Annotated[int, Meta(ge=0, le=MAX_RETRIES)] = 0
    retry: RetryPolicy | UnsetType = UNSET
    on_lost: OnLost = OnLost.RERUN
    input_schema: dict[str, Any] | UnsetType = UNSET
    output_schema: dict[str, Any] | UnsetType = UNSET


class _Job(Struct, forbid_unknown_fields=True):
    name: str
    tasks: list[_Task]
    job_type: TypeName | UnsetType = UNSET
    org: OrgId = DEFAULT_ORG
    v: Literal[1] = 1


class _NotPlain(Exception):
    pass


_decode = msgspec.json.Decoder(_Job).decode


def decode_plain(text: str) -> JobDefinition | None:
    """The definition; None where the document has to go the long way."""
    if not text.lstrip(" \t\r\n").startswith("{") or refers(text):
        return None
    try:
        job = _decode(text)
        # A second time, since msgspec takes the last of several equal keys without a word, and keeps no number's text.
        texts = json.loads(text, object_pairs_hook=_no_duplicates, parse_int=str, parse_float=str)
        schemas = SchemaFiles(None)
        tasks = [_definition(task, texts["tasks"][i].get("params", {}), schemas) for i, task in enumerate(job.tasks)]
    except (msgspec.DecodeError, ValueError, RecursionError, _NotPlain):
        return None
    if dag.job_name_problem(job.name) or not dag.is_valid(tasks):
        return None
    job_type = slug(job.name) if job.job_type is UNSET else job.job_type
    return JobDefinition(name=job.name, job_type=job_type, tasks=tasks, org=job.org)


def _definition(task: _Task, texts: dict[str, str], schemas: SchemaFiles) -> TaskDefinition:
    if task.task_type == molecules.TASK_TYPE:  # it has a document in it
        raise _NotPlain
    for reference in task.input_from.values():
        if "" in reference.split("."):
            raise _NotPlain
    for schema in (task.input_schema, task.output_schema):
        if schema is not UNSET and not schemas.usable(schema):
            raise _NotPlain
    return TaskDefinition(
        name=task.name,
        task_type=task.task_type,
        depends_on=task.depends_on,
        input_from=task.input_from,
        params={
            key: value if isinstance(value, str) else _param(value, texts[key]) for key, value in task.params.items()
        },
        timeout_secs=None if task.timeout_secs is UNSET else task.timeout_secs,
        max_retries=task.max_retries,
        retry=None if task.retry is UNSET else task.retry,
        on_lost=task.on_lost,
        input_schema=None if task.input_schema is UNSET else task.input_schema,
        output_schema=None if task.output_schema is UNSET else task.output_schema,
    )


def _param(value: bool | int | float | SecretRef, text: str) -> str | SecretRef:
    if isinstance(value, SecretRef):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return text


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _NotPlain
    return found
