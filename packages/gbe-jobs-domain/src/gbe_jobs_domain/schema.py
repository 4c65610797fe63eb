"""JSON Schemas: of the document people write, for editors, and of every message, for other languages.

`python -m gbe_jobs_domain.schema DIR` writes them all (the repository keeps them in `docs/protocol/`).
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from gbe_jobs_domain import definitions, ids, payloads, records
from gbe_jobs_domain.definitions import MAX_JOB_NAME, MAX_RETRIES, MAX_TASKS
from gbe_jobs_domain.keys import JOB, MOLECULE, Form

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]

PAYLOADS: Final[dict[str, tuple[type[msgspec.Struct], str]]] = {
    "job-submitted": (payloads.JobSubmitted, "gbe.jobs.{job_type}.submit"),
    "job-cancel-requested": (payloads.JobCancelRequested, "gbe.jobs.{job_type}.cancel"),
    "job-created": (payloads.JobCreated, "gbe.jobs.{job_type}.created"),
    "job-completed": (payloads.JobCompleted, "gbe.jobs.{job_type}.completed"),
    "job-failed": (payloads.JobFailed, "gbe.jobs.{job_type}.failed"),
    "job-cancelled": (payloads.JobCancelled, "gbe.jobs.{job_type}.cancelled"),
    "job-refused": (payloads.JobRefused, "gbe.jobs.{job_type}.refused"),
    "task-queued": (payloads.TaskQueued, "gbe.tasks.{task_type}.queue"),
    "task-ended": (payloads.TaskEnded, "gbe.tasks.{task_type}.terminal"),
    "task-progress": (payloads.TaskProgress, "gbe.tasks.{task_type}.progress"),
    "task-control": (payloads.TaskControl, "gbe.tasks.{task_type}.control"),
    "job-summary": (payloads.JobSummary, "gbe.history.{job_type}.{job_id}"),
    "journal-record": (records.JournalRecord, "gbe.journal.{job_type}.{job_id}"),
    "task-note": (payloads.TaskNote, ""),
    "job-definition": (definitions.JobDefinition, ""),
}
"""Name of the schema: the struct, and the subject it travels on (none: it is stored, or part of another)."""


_REFERENCE: Final[Schema] = {"type": "string", "pattern": r"^[A-Za-z0-9_-]{1,128}(\.[^.]+)*$(?!\n)"}
_NAMED: Final[Schema] = {"pattern": r"^[A-Za-z0-9_-]{1,128}$(?!\n)"}


def protocol_schemas() -> dict[str, Schema]:
    """Name to schema: the envelope, and everything that is its `data` or is kept."""
    schemas = {name: payload_schema(name, struct, subject) for name, (struct, subject) in PAYLOADS.items()}
    return {"envelope": envelope_schema()} | schemas


def payload_schema(name: str, struct: type[msgspec.Struct], subject: str) -> Schema:
    """The schema of one payload, be it of this package or of another."""
    (reference,), components = msgspec.json.schema_components([struct], ref_template="#/$defs/{name}")
    schema: Schema = {"$schema": DIALECT, "$id": f"urn:gbe:protocol:v1:{name}", "title": struct.__name__}
    if subject:
        schema["x-gbe-subject"] = subject
    tidied: Schema = _tidy(schema | reference | {"$defs": components})
    return tidied


def envelope_schema() -> Schema:
    """`DomainPayload`: what surrounds the `data` of every message."""
    return {
        "$schema": DIALECT,
        "$id": "urn:gbe:protocol:v1:envelope",
        "title": "DomainPayload",
        "description": "The body of every message. Unknown fields are ignored.",
        "type": "object",
        "properties": {
            "v": {"const": 1, "description": "Version of the protocol."},
            "ts": {"type": "integer", "minimum": 0, "description": "Milliseconds since the epoch."},
            "id": {"type": "string", "description": "Stable for the logical event; most travel as Nats-Msg-Id too."},
            "data": {"type": "object", "description": "One of the payloads, by subject."},
        },
        "required": ["v", "ts", "id", "data"],
    }


def job_document_schema() -> Schema:
    """The document as people write it, in both forms."""
    return {
        "$schema": DIALECT,
        "$id": "urn:gbe:job-document:v1",
        "title": "GBE job document",
        "description": "A job: tasks that depend on each other. Written in the job form or the molecule form.",
        "oneOf": [_document(JOB), _document(MOLECULE)],
        "$defs": {
            "scalar": {
                "type": ["string", "number", "boolean"],
                "description": "Made a string. ${{ vars.name }} is substituted when the job is submitted.",
            },
            "secret": {
                "description": "Resolved on the Operative's host, never sent.",
                "type": "object",
                "properties": {"secret": {"type": "string", "pattern": r"^[A-Za-z0-9_.-]{1,128}$(?!\n)"}},
                "required": ["secret"],
                "additionalProperties": False,
            },
            "task": _task(JOB),
            "step": _task(MOLECULE),
        },
    }


def _document(form: Form) -> Schema:
    task = "task" if form is JOB else "step"
    title = "The job's name." if form is JOB else "The molecule's name."
    return {
        "type": "object",
        "title": f"{form.title} form",
        "properties": {
            "v": {"const": 1, "description": "Version of the document; 1 is the only one."},
            form.name: {"type": "string", "minLength": 1, "maxLength": MAX_JOB_NAME, "description": title},
            "job_type": _pattern(ids.TypeName, "Part of subjects. Default: made from the name."),
            "org": _pattern(ids.OrgId, f"Default: {ids.DEFAULT_ORG}.") | {"default": ids.DEFAULT_ORG},
            "vars": {
                "description": "Variables with their defaults; --var name=value overrides.",
                "type": "object",
                "propertyNames": {"pattern": r"^[A-Za-z_][A-Za-z0-9_-]{0,127}$(?!\n)"},
                "additionalProperties": {"type": ["string", "number", "boolean"]},
            },
            form.tasks: {
                "description": f"The {task}s, in any order.",
                "type": "array",
                "items": {"$ref": f"#/$defs/{task}"},
                "minItems": 1,
                "maxItems": MAX_TASKS,
            },
            "output": {
                "description": "What a molecule hands on, instead of all results by name: 'task' or 'task.path'.",
                "anyOf": [
                    _REFERENCE,
                    {"type": "object", "propertyNames": _NAMED, "additionalProperties": _REFERENCE},
                ],
            },
            "fail_fast": {
                "description": "Whether the first failure ends the job; else what does not depend on it goes on.",
                "type": "boolean",
                "default": True,
            },
            "local": {
                "description": "How gbe run serves the job where it brings Operatives along; nobody else looks.",
                "type": "object",
                "properties": {
                    "app": {"type": "string", "description": "As --app: a Python module beside this file."},
                    "operatives": {"type": "string", "description": "As --operatives: data-fetch=shell:2."},
                },
                "additionalProperties": False,
            },
        },
        "required": [form.name, form.tasks],
        "additionalProperties": False,
    }


def _task(form: Form) -> Schema:
    properties: Schema = {
        "name": _pattern(ids.TaskName, "Unique in the job."),
        form.task_type: _pattern(ids.TypeName, "Which Operatives take it."),
        "depends_on": {
            "description": "Names of the tasks that have to be over first.",
            "type": "array",
            "items": _pattern(ids.TaskName, "A task's name."),
            "uniqueItems": True,
        },
        "input_from": {
            "description": "Params taken from the data of tasks in depends_on: 'task', or 'task.path.to.value'.",
            "type": "object",
            "propertyNames": {"minLength": 1, "maxLength": 128},
            "additionalProperties": _REFERENCE,
        },
        "params": {
            "description": "What the task type understands; for shell: command, the others become the environment.",
            "type": "object",
            "propertyNames": {"minLength": 1, "maxLength": 128},
            "properties": {
                "molecule": {
                    "description": "Of a molecule: the inner document, as a mapping or as text.",
                    "anyOf": [{"$ref": "#/$defs/scalar"}, {"$ref": "#"}],
                }
            },
            "additionalProperties": {"anyOf": [{"$ref": "#/$defs/scalar"}, {"$ref": "#/$defs/secret"}]},
        },
        "timeout_secs": {
            "description": "The time one attempt may take.",
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 31_536_000,
        },
        "max_retries": {
            "description": "How often a failed task is tried again.",
            "type": "integer",
            "minimum": 0,
            "maximum": MAX_RETRIES,
            "default": 0,
        },
        "retry": {
            "description": "Back-off between attempts: delay * factor ** (failed - 1) seconds, at most max_delay.",
            "type": "object",
            "properties": {
                "delay": {"type": "number", "minimum": 0, "maximum": 86_400, "default": 1},
                "factor": {"type": "number", "minimum": 1, "maximum": 100, "default": 2},
                "max_delay": {"type": "number", "minimum": 0, "maximum": 86_400, "default": 60},
            },
            "additionalProperties": False,
        },
        "on_lost": {
            "description": "When the worker died: run the task again, or fail it (work that must not run twice).",
            "enum": ["rerun", "fail"],
            "default": "rerun",
        },
        "input_schema": _data_schema(
            "of the params once they are resolved, those from input_from as the values they are"
        ),
        "output_schema": _data_schema("of the task's data"),
    }
    return {
        "type": "object",
        "properties": properties,
        "required": ["name", form.task_type],
        "additionalProperties": False,
    }


def _data_schema(what: str) -> Schema:
    return {
        "description": f"A JSON Schema {what}, or the name of a file that holds one, relative to the document.",
        "anyOf": [{"type": "object", "additionalProperties": True}, {"type": "string", "minLength": 1}],
    }


def _pattern(annotated: Any, description: str) -> Schema:
    return {"description": description} | {
        key: value for key, value in msgspec.json.schema(annotated).items() if key in ("type", "pattern")
    }


def _tidy(value: Any) -> Any:
    """Docstrings are wrapped for the source; a description is one line."""
    if isinstance(value, dict):
        return {
            key: re.sub(r"\s+", " ", item) if key == "description" and isinstance(item, str) else _tidy(item)
            for key, item in value.items()
        }
    return [_tidy(item) for item in value] if isinstance(value, list) else value


def rendered() -> dict[str, str]:
    """File name to text, of all schemas."""
    schemas = protocol_schemas() | {"job-document": job_document_schema()}
    return {f"{name}.json": text_of(schema) for name, schema in schemas.items()}


def text_of(schema: Schema) -> str:
    """A schema as it is kept in a file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Write the schemas into a folder."""
    if len(arguments) != 1:
        print("usage: python -m gbe_jobs_domain.schema DIR", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in rendered().items():
        (folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
