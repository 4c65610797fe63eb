"""`@task`: turns functions into task types. `App`: a collection of them, with settings.

This module and what it imports is all that a function's process loads of GBE, so it is kept small.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, TypeVar, overload

from gbe_operative_python.arguments import Signature
from gbe_operative_python.errors import DeclarationError

F = TypeVar("F", bound=Callable[..., Any])

MARK = "__gbe_task__"
"""The attribute of a function that `@task` sets."""

DECLARED = "__gbe_declared__"
"""The global of a module with the tasks that were declared at its top, those whose names were taken since included."""

RECYCLE_AFTER = 10_000
_TYPE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,46}[a-z0-9])?\Z")


@dataclass(frozen=True, slots=True)
class PythonTask:
    """A function as a task type. `slots`: how many run at once; None = the worker's default."""

    task_type: str
    function: Callable[..., Any]
    slots: int | None = None
    _signature: list[Signature] = field(default_factory=list, repr=False, compare=False)

    @property
    def signature(self) -> Signature:
        """What it takes; looked at when it is first needed, for it may name types that are defined further down.

        Raises `DeclarationError`.
        """
        if not self._signature:
            self._signature.append(Signature(self.function))
        return self._signature[0]


@overload
def task(function: F, /) -> F: ...
@overload
def task(task_type: str | None = None, /, *, slots: int | None = None) -> Callable[[F], F]: ...
def task(what: Any = None, /, *, slots: int | None = None) -> Any:
    """Make a function a task type: `@task`, `@task("resize-image")` or `@task(slots=2)`.

    The function stays what it was and can be called as before. Without a name the task type is the function's, with
    `-` for `_`. Raises `DeclarationError`.
    """
    if callable(what):
        return _declared(what, None, None)

    def decorate(function: F) -> F:
        return _declared(function, what, slots)

    return decorate


def _declared(function: F, task_type: str | None, slots: int | None) -> F:
    name = getattr(function, "__qualname__", repr(function))
    if not inspect.isfunction(function):
        raise DeclarationError(f"{name}: a task is a function, not {type(function).__name__}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DeclarationError(f"{name}: a task returns its result; it can't yield")
    if task_type is None:
        task_type = function.__name__.strip("_").replace("_", "-").lower()
    if not _TYPE.match(str(task_type)):
        raise DeclarationError(
            f"{name}: {task_type!r} is no task type: 1 to 48 of a-z, 0-9 and -, no - at its beginning or end"
        )
    if slots is not None and slots < 1:
        raise DeclarationError(f"{name}: slots are a number from 1 on, not {slots!r}")
    declared = PythonTask(task_type, function, slots)
    setattr(function, MARK, declared)
    if function.__qualname__ == function.__name__:
        function.__globals__.setdefault(DECLARED, []).append(declared)
    return function


class App:
    """Task types that are served together.

        app = App(recycle_after=100)

        @app.task("resize-image")
        async def resize(path: str, width: int = 800) -> dict: ...

    `slots`: how many tasks of a type run at once, where the task doesn't say. `environment`: variables of the worker
    that the functions' processes get beside PATH, HOME, LANG and the like; `"AWS_*"` is all that begin so.
    `recycle_after`: tasks after which a process is replaced by a new one; `max_memory`: bytes of memory from which on
    it is (None = any). `grace`: seconds between the request to end and the kill.
    """

    def __init__(
        self,
        *,
        slots: int | None = None,
        environment: Sequence[str] = (),
        recycle_after: int = RECYCLE_AFTER,
        max_memory: int | None = None,
        grace: float = 5.0,
    ) -> None:
        if isinstance(environment, str):
            raise DeclarationError(f"environment is a list of names, not the text {environment!r}")
        for name, number in (("recycle_after", recycle_after), ("slots", slots), ("max_memory", max_memory)):
            if number is not None and number < 1:
                raise DeclarationError(f"{name} is a number from 1 on, not {number}")
        if grace < 0:
            raise DeclarationError(f"grace is a number of seconds, not {grace}")
        self.slots = slots
        self.environment = tuple(environment)
        self.recycle_after = recycle_after
        self.max_memory = max_memory
        self.grace = grace
        self._tasks: dict[str, PythonTask] = {}

    @property
    def tasks(self) -> tuple[PythonTask, ...]:
        """In the order of their declaration."""
        return tuple(self._tasks.values())

    @overload
    def task(self, function: F, /) -> F: ...
    @overload
    def task(self, task_type: str | None = None, /, *, slots: int | None = None) -> Callable[[F], F]: ...
    def task(self, what: Any = None, /, *, slots: int | None = None) -> Any:
        """As the function `task`, and adds it."""
        if callable(what):
            self.add(task(what))
            return what

        def decorate(function: F) -> F:
            self.add(task(what, slots=slots)(function))
            return function

        return decorate

    def add(self, *what: Any) -> App:
        """Add functions that `@task` made tasks, the tasks of other apps, or those of modules; returns this app."""
        for one in what:
            for found in tasks_of(one):
                known = self._tasks.setdefault(found.task_type, found)
                if known.function is not found.function:
                    raise DeclarationError(_twice(known, found))
        return self


def tasks_of(what: Any) -> tuple[PythonTask, ...]:
    """The tasks of a function, an `App`, or a module (which has those its global names refer to).

    Raises `DeclarationError` where there is none.
    """
    if isinstance(what, App):
        return what.tasks
    if isinstance(what, ModuleType):
        found_in = _unique(vars(what).values())
        for lost in vars(what).get(DECLARED, ()):
            now = getattr(vars(what).get(lost.function.__name__), MARK, None)
            if isinstance(now, PythonTask) and now.function is not lost.function and lost not in found_in:
                raise DeclarationError(_hidden(lost, now))
        return found_in
    found = getattr(what, MARK, None)
    if isinstance(found, PythonTask):
        return (found,)
    raise DeclarationError(f"{what!r} is neither a function with @task, nor an App, nor a module with such")


def _unique(values: Any) -> tuple[PythonTask, ...]:
    found: dict[str, PythonTask] = {}
    for one in _marked(values):
        known = found.setdefault(one.task_type, one)
        if known.function is not one.function:
            raise DeclarationError(_twice(known, one))
    return tuple(found.values())


def _marked(values: Any) -> Iterator[PythonTask]:
    for value in list(values):
        if inspect.isfunction(value) and isinstance(found := getattr(value, MARK, None), PythonTask):
            # Another decorator around it took over the mark: it is meant to be called, too.
            yield found if found.function is value else PythonTask(found.task_type, value, found.slots)


def _hidden(lost: PythonTask, now: PythonTask) -> str:
    first, second = (one.function.__code__.co_firstlineno for one in (lost, now))
    name = f"{lost.function.__module__}.{lost.function.__qualname__}"
    return f"two functions with @task are named {name}, at lines {first} and {second}: nobody can find the first one"


def _twice(one: PythonTask, other: PythonTask) -> str:
    where = [f"{task.function.__module__}.{task.function.__qualname__}" for task in (one, other)]
    return f"two functions for task type {one.task_type!r}: {where[0]} and {where[1]}"


def app_of(what: Any) -> App:
    """The app that is meant: the app itself, that of a module which has one, or a new one of whatever has tasks.

    Raises `DeclarationError`.
    """
    if isinstance(what, App):
        return what
    if isinstance(what, ModuleType):
        apps = {name: value for name, value in vars(what).items() if isinstance(value, App)}
        if len({id(app) for app in apps.values()}) > 1:
            choice = " or ".join(f"{what.__name__}:{name}" for name in apps)
            raise DeclarationError(f"{what.__name__} has several apps; say which: {choice}")
        if apps:
            return next(iter(apps.values()))
    return App().add(what)
