"""Overseer: the `gbe` command, and `JobClient`, with which any service submits, finds, watches and cancels jobs."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gbe_overseer.client import CancelAnswer as CancelAnswer
    from gbe_overseer.client import Cancelled as Cancelled
    from gbe_overseer.client import JobClient as JobClient
    from gbe_overseer.client import JobLine as JobLine
    from gbe_overseer.client import Submitted as Submitted
    from gbe_overseer.result import job_result as job_result
    from gbe_overseer.view import JobView as JobView
    from gbe_overseer.view import TaskView as TaskView
    from gbe_overseer.watching import JobWatch as JobWatch

_HOME = {
    "CancelAnswer": "client",
    "Cancelled": "client",
    "JobClient": "client",
    "JobLine": "client",
    "Submitted": "client",
    "job_result": "result",
    "JobView": "view",
    "TaskView": "view",
    "JobWatch": "watching",
}


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
