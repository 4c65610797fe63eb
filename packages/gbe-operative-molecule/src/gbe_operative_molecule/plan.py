"""From a task to the definition of its inner job. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from gbe_jobs_domain.definitions import JobDefinition
from gbe_jobs_domain.documents import load_document
from gbe_jobs_domain.errors import DefinitionErrors
from gbe_jobs_domain.ids import child_job_id
from gbe_jobs_domain.molecules import DOCUMENT, MODE, MODES, OWN_PARAMS, PATH, REFERENCE, SOURCES
from gbe_jobs_domain.payloads import SecretRef, TaskQueued
from gbe_operative.contract import OperativeError

SHOWN = 10
"""Errors of a document that a task's own error repeats."""


def rejected(message: str) -> OperativeError:
    """For what would be as wrong the next time."""
    from gbe_jobs_domain.outcomes import FailureKind

    return OperativeError(message, kind=FailureKind.REJECTED)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a task asks for. `child`: the id of its inner job; `source` and `given`: which param says what it is."""

    child: str
    mode: str
    source: str
    given: str
    variables: dict[str, str]


def plan(task: TaskQueued, attempt: int, params: Mapping[str, str], max_depth: int) -> Plan:
    """Read a molecule task's params. Raises `OperativeError` (rejected)."""
    secret = next((name for name, value in task.params.items() if isinstance(value, SecretRef)), None)
    if secret is not None:
        raise rejected(f"param {secret!r}: a secret can't be passed to a molecule: it would travel with the inner job")
    mode = params.get(MODE, MODES[0])
    if mode not in MODES:
        raise rejected(f"param {MODE!r}: expected 'bus' or 'local', found {mode[:80]!r}")
    sources = [name for name in SOURCES if name in params]
    if len(sources) != 1:
        found = " and ".join(sources) or "none of them"
        raise rejected(f"a molecule is one of the params {', '.join(SOURCES)}; found {found}")
    source = sources[0]
    if source == PATH:
        raise rejected(
            f"param {PATH!r}: a file is read where a job is submitted, and only for tasks of type 'molecule'"
        )
    if task.depth >= max_depth:
        raise rejected(f"molecules within molecules, more than {max_depth} levels deep")
    variables = {name: value for name, value in params.items() if name not in OWN_PARAMS}
    return Plan(child_job_id(task.task_id, attempt - 1), mode, source, params[source], variables)


def lineage_of(task: TaskQueued, reference: str) -> list[str]:
    """The registered molecules that the inner job is made of. Raises `OperativeError` where they go in a circle."""
    if reference in task.lineage:
        circle = [*task.lineage[task.lineage.index(reference) :], reference]
        raise rejected("cyclic molecules: " + " → ".join(circle))
    return [*task.lineage, reference]


def inner_definition(text: str | bytes, source: str, variables: Mapping[str, str], org: str) -> JobDefinition:
    """The inner job. Raises `OperativeError` (rejected) with what is wrong with the document."""
    try:
        definition = load_document(text, source=source, variables=variables, given_as="param").definition
    except DefinitionErrors as errors:
        lines = [str(error) for error in errors.errors[:SHOWN]]
        if left_out := len(errors.errors) - SHOWN + errors.omitted:
            lines += [f"… and {left_out} more"] if left_out > 0 else []
        raise rejected("\n".join(lines)) from None
    return replace(definition, org=org)


__all__ = ["DOCUMENT", "REFERENCE", "Plan", "inner_definition", "lineage_of", "plan", "rejected"]
