"""Which task types the installed Operatives can serve here."""

from __future__ import annotations

from gbe_jobs_domain.definitions import JobDefinition
from gbe_jobs_domain.molecules import task_types
from gbe_operative.core.handles import InvalidHandles, parse_handles
from gbe_operative.plugins import installed
from gbe_runtime.errors import ConfigurationError

ONLY_FOR_TESTS = "mock"
_THEIR_DEFAULT = 0  # no number given: the Operative's own setting says how many slots


def handles_for(definition: JobDefinition, wanted: str | None) -> str:
    """What to start an Operative with for this job; empty where nothing that is installed serves any of its types.

    A type is served by the plug-in of the same name, unless `wanted` (as `--handles` has it) says otherwise. Types
    that nothing serves are left: the job waits for them, and whoever looks on is told. What the steps of molecules need
    is known where their documents came along; with registered ones everything is served that is installed.
    """
    served = {} if wanted is None else checked(wanted)
    types = task_types(definition)
    if types is None:
        types = (set(installed()) - {ONLY_FOR_TESTS}) | {task.task_type for task in definition.tasks}
    missing = types - served.keys()
    return ",".join([*served.values(), *sorted(missing & set(installed()))])


def all_handles(wanted: str | None) -> str:
    """What to serve on this host: every installed plug-in under its own name, unless `wanted` says otherwise.

    Not `mock`, though: it is for tests, and would report as done what a mistyped job never did.
    """
    if wanted is not None:
        return ",".join(checked(wanted).values())
    return ",".join(name for name in installed() if name != ONLY_FOR_TESTS)


def checked(text: str) -> dict[str, str]:
    """Each task type of a `--handles` text, with its part of it. Raises `ConfigurationError`."""
    known = installed()
    try:
        found = parse_handles(text, _THEIR_DEFAULT)
    except InvalidHandles as error:
        raise ConfigurationError(f"--handles: {error}") from error
    for handle in found:
        if handle.plugin not in known:
            raise ConfigurationError(
                f"no Operative {handle.plugin!r} is installed here; there are: {', '.join(known) or 'none'}"
            )
    return {
        handle.task_type: f"{handle.task_type}={handle.plugin}{f':{handle.slots}' if handle.slots else ''}"
        for handle in found
    }
