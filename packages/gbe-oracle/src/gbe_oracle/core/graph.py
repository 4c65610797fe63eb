"""The DAG of one job as arrays: who waits for whom, by task index (the place in the definition)."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from gbe_jobs_domain.definitions import TaskOutline, upstream_of


class TaskGraph:
    """Edges in compressed form, so that a job of 50,000 tasks costs a few bytes per edge.

    The definition was checked (`gbe_jobs_domain.dag`): names are unique, dependencies exist, there is no cycle.
    """

    __slots__ = ("_first", "_targets", "dependencies", "index_of", "read", "tasks")

    def __init__(self, tasks: Sequence[TaskOutline]) -> None:
        self.tasks = tasks
        self.index_of = {task.name: index for index, task in enumerate(tasks)}
        count = len(tasks)
        self.dependencies = array("I", (len(task.depends_on) for task in tasks))
        self.read = bytearray(count)
        """1 where some dependent reads the task's data."""
        fan_out = array("I", bytes(4 * (count + 1)))
        index_of = self.index_of
        for task in tasks:
            for name in task.depends_on:
                fan_out[index_of[name] + 1] += 1
            for reference in task.input_from.values():
                self.read[index_of[upstream_of(reference)]] = 1
        for index in range(count):
            fan_out[index + 1] += fan_out[index]
        self._first = fan_out
        targets = array("I", bytes(4 * fan_out[count]))
        place = array("I", fan_out)
        for index, task in enumerate(tasks):
            for name in task.depends_on:
                upstream = index_of[name]
                targets[place[upstream]] = index
                place[upstream] += 1
        self._targets = targets

    def __len__(self) -> int:
        return len(self.tasks)

    def dependents(self, index: int) -> array[int]:
        """Indices of the tasks that wait for this one, ascending."""
        return self._targets[self._first[index] : self._first[index + 1]]

    def upstream_read(self, index: int) -> set[int]:
        """Indices of the tasks whose data this one reads."""
        return {self.index_of[upstream_of(reference)] for reference in self.tasks[index].input_from.values()}
