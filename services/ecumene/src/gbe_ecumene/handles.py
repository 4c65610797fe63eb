"""Which task types the installed Operatives can serve here."""

from __future__ import annotations

from collections.abc import Collection

from gbe_jobs_domain.definitions import JobDefinition
from gbe_jobs_domain.molecules import task_types
from gbe_operative.apps import load_app
from gbe_operative.contract import Operative
from gbe_operative.core.handles import DEFAULT_OF_TYPE, InvalidHandles, parse_handles
from gbe_operative.plugins import PluginError, installed
from gbe_runtime.errors import ConfigurationError

ONLY_FOR_TESTS = "mock"


def handles_for(definition: JobDefinition, wanted: str | None, own: Collection[str] = ()) -> str:
    """What to start an Operative with for this job; empty where nothing that is installed serves any of its types.

    A type is served by the plug-in of the same name, unless `wanted` (as `--handles` has it) says otherwise; `own` are
    types of an app (`--app`), which come first. Types that nothing serves are left: the job waits for them, and whoever
    looks on is told. What the steps of molecules need is known where their documents came along; with registered ones
    everything is served that is installed.
    """
    served = {} if wanted is None else checked(wanted, own)
    types = task_types(definition)
    if types is None:
        types = (set(installed()) - {ONLY_FOR_TESTS}) | {task.task_type for task in definition.tasks}
    missing = types - served.keys()
    return ",".join([*served.values(), *sorted(missing & {*installed(), *own})])


def all_handles(wanted: str | None, own: Collection[str] = ()) -> str:
    """What to serve on this host: the types of an app (`own`) and every installed plug-in under its own name, unless
    `wanted` says otherwise.

    Not `mock`, though: it is for tests, and would report as done what a mistyped job never did.
    """
    if wanted is not None:
        return ",".join(checked(wanted, own).values())
    return ",".join([*own, *(name for name in installed() if name != ONLY_FOR_TESTS and name not in own)])


def checked(text: str, own: Collection[str] = ()) -> dict[str, str]:
    """Each task type of a `--handles` text, with its part of it. Raises `ConfigurationError`."""
    known = installed()
    try:
        found = parse_handles(text, DEFAULT_OF_TYPE)
    except InvalidHandles as error:
        raise ConfigurationError(f"--handles: {error}") from error
    for handle in found:
        if handle.plugin not in known and not (handle.plugin == handle.task_type in own):
            raise ConfigurationError(
                f"no Operative {handle.plugin!r} is installed here; there are: {', '.join(known) or 'none'}"
            )
    return {
        handle.task_type: f"{handle.task_type}={handle.plugin}{f':{handle.slots}' if handle.slots else ''}"
        for handle in found
    }


def types_of(app: str | None) -> tuple[str, ...]:
    """The task types of an app (`--app`), whose module is imported for that. Raises `ConfigurationError`."""
    return () if app is None else served_by(app).handles


def served_by(app: str) -> Operative:
    """The Operative of an app. Raises `ConfigurationError`."""
    try:
        return load_app(app)
    except PluginError as error:
        raise ConfigurationError(str(error)) from error
