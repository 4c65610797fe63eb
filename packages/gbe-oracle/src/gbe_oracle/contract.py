"""The Oracle's contract (mission document "ecumene roles"): it owns a job's life and executes nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod

from gbe_jobs_domain.definitions import JobDefinition
from gbe_jobs_domain.payloads import TaskEnded


class OracleError(Exception):
    """Root of what an Oracle raises to its caller."""


class Oracle(ABC):
    """Takes job definitions, walks their DAGs, queues what is ready, hears of ends."""

    @abstractmethod
    async def submit(self, definition: JobDefinition) -> str:
        """Accept a job durably; returns its id. The job may be run by another Oracle on the same bus.

        Raises `OracleError` for a definition that no Oracle would take.
        """

    @abstractmethod
    async def tick(self) -> None:
        """Drive what time drives: deadlines, and the clean-up of streams and journals. Called about once a second."""

    @abstractmethod
    async def task_reported(self, report: TaskEnded) -> None:
        """Apply a report that did not come over the bus; returns when it is in the journal and its effects are out.

        A report of an unknown task, or of one that has ended, changes nothing.
        """
