"""Subjects and keys of wire protocol v1. Arguments are checked ids: `ids.py` and the payload types see to that."""

from __future__ import annotations

JOB_EVENTS = ("created", "completed", "failed", "cancelled", "refused")


def submit(job_type: str) -> str:
    """Anyone → Oracle."""
    return f"gbe.jobs.{job_type}.submit"


def cancel(job_type: str) -> str:
    """Anyone → Oracle."""
    return f"gbe.jobs.{job_type}.cancel"


def job_event(job_type: str, event: str) -> str:
    """Oracle → all; `event` is one of `JOB_EVENTS`."""
    return f"gbe.jobs.{job_type}.{event}"


def queue(task_type: str) -> str:
    """Oracle → one Operative."""
    return f"gbe.tasks.{task_type}.queue"


def terminal(task_type: str) -> str:
    """Operative → Oracle, all."""
    return f"gbe.tasks.{task_type}.terminal"


def progress(task_type: str) -> str:
    """Operative → all."""
    return f"gbe.tasks.{task_type}.progress"


def control(task_type: str) -> str:
    """Oracle, services → Operatives."""
    return f"gbe.tasks.{task_type}.control"


def journal(job_type: str, job_id: str) -> str:
    """The job's log; `*` for either is a wildcard."""
    return f"gbe.journal.{job_type}.{job_id}"


def history(job_type: str, job_id: str) -> str:
    """The job's summary; `*` for either is a wildcard."""
    return f"gbe.history.{job_type}.{job_id}"


def operative_consumer(task_type: str) -> str:
    """The durable that all Operatives of a task type share."""
    return f"operative-{task_type}"


ORACLE_CONSUMER = "oracle"
"""The durable that all Oracles share on `GBE_INBOX`."""

NOTES_BUCKET = "gbe-notes"
"""State-store bucket of the notes per task (architecture section 5); key: the task id."""


MOLECULES_BUCKET = "gbe-molecules"
"""State-store bucket of registered molecules: their indices by name, and the documents below."""


def parent_key(job_id: str) -> str:
    """The artifact that says whose child a job is, where the parent was handed references to its artifacts: those
    stay for as long as the parent is remembered, and the parent's tasks may read them."""
    return artifact_key(job_id, "parent.json")


def artifact_key(job_id: str, *parts: str) -> str:
    """A key in the artifact store. Starts with the job id, so that a job's artifacts go with it."""
    return "/".join((job_id, *parts))
