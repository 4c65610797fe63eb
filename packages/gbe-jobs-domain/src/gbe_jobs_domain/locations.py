"""Relative paths in a job: those of files beside the document it was written in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from gbe_jobs_domain.definitions import JobDefinition, TaskDefinition

PATH_PARAMS: Final[dict[str, tuple[str, ...]]] = {
    "script": ("script_path",),
    "template": ("template_path", "output_path"),
}
"""Params that are paths, by task type."""


def located(definition: JobDefinition, folder: str | Path) -> JobDefinition:
    """The definition with its relative paths made absolute, from `folder` on; as it is where it has none.

    To be used where the job's Operatives see the same files as who submits it; elsewhere a relative path starts at the
    root that the Operative's host has for such files.
    """
    if not any(task.task_type in PATH_PARAMS for task in definition.tasks):
        return definition
    base = os.path.abspath(folder)
    return replace(definition, tasks=[_located(task, base) for task in definition.tasks])


def _located(task: TaskDefinition, base: str) -> TaskDefinition:
    params = dict(task.params)
    for name in PATH_PARAMS.get(task.task_type, ()):
        value = params.get(name)
        if isinstance(value, str) and value and not os.path.isabs(value):
            # Not normalised: what `..` means behind a link only who opens it can tell.
            params[name] = os.path.join(base, value)
    return task if params == task.params else replace(task, params=params)
