"""Operatives that are installed here: entry-point group `gbe.operatives`, name to a callable that takes the task types
and gives an `Operative`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import entry_points
from typing import cast

from gbe_operative.composite import CompositeOperative
from gbe_operative.contract import Operative
from gbe_operative.core.handles import Handle
from gbe_runtime.errors import ConfigurationError

GROUP = "gbe.operatives"

Factory = Callable[[Sequence[str]], Operative]


class PluginError(Exception):
    """A plug-in is not installed, or broken; the text names it."""


def installed() -> list[str]:
    """Names of the plug-ins, whether they work or not."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def load(name: str, task_types: Sequence[str]) -> Operative:
    """The plug-in's Operative for these task types. Nothing else is loaded.

    Raises `PluginError`, and `ConfigurationError` where the plug-in's own settings are wrong.
    """
    found = [point for point in entry_points(group=GROUP) if point.name == name]
    if not found:
        raise PluginError(f"no Operative {name!r} is installed here; there are: {', '.join(installed()) or 'none'}")
    try:
        factory = cast(Factory, found[0].load())
        operative = factory(tuple(task_types))
    except ConfigurationError:  # the host's settings are at fault, not the plug-in
        raise
    except Exception as error:
        raise PluginError(f"the Operative {name!r} ({found[0].value}) is broken: {error}") from error
    missing = set(task_types) - set(operative.handles)
    if missing:
        raise PluginError(f"the Operative {name!r} does not handle {', '.join(sorted(missing))}")
    return operative


def load_all(handles: Iterable[Handle]) -> Operative:
    """One Operative for everything in `--handles`; a plug-in named for several types is loaded once."""
    types: dict[str, list[str]] = {}
    for handle in handles:
        types.setdefault(handle.plugin, []).append(handle.task_type)
    members = [load(plugin, task_types) for plugin, task_types in types.items()]
    return members[0] if len(members) == 1 else CompositeOperative(members)


def load_served(app: Operative | None, handles: Sequence[Handle]) -> Operative:
    """One Operative for `handles`: a type of the app by the app, unless another plug-in is named for it.

    Raises `PluginError`.
    """
    if app is None:
        return load_all(handles)
    own = {handle.task_type for handle in handles if handle.task_type == handle.plugin} & set(app.handles)
    others = [handle for handle in handles if handle.task_type not in own]
    for handle in others:
        if handle.plugin == handle.task_type and handle.plugin not in installed():
            raise PluginError(
                f"the app has no task type {handle.task_type!r}, and no Operative of that name is installed here; "
                f"the app has: {', '.join(app.handles)}"
            )
    if not others and own == set(app.handles):
        return app
    members = [*([CompositeOperative([app], only=own)] if own else []), *([load_all(others)] if others else [])]
    return members[0] if len(members) == 1 else CompositeOperative(members)
