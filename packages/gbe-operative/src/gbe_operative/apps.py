"""`--app module:attribute`: Operatives that come from somebody's own code instead of an installed plug-in.

What is found there is an `Operative`, a class of one, or something that an installed package makes one of: the
entry-point group `gbe.apps` has callables that take the object and its location and give an `Operative`, or None.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from types import FrameType, ModuleType
from typing import Any, cast

from gbe_operative.contract import Operative
from gbe_operative.plugins import PluginError

GROUP = "gbe.apps"

Maker = Callable[[object, str], Operative | None]

_LOCATION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(:[^\W\d]\w*(\.[^\W\d]\w*)*)?\Z")


def load_app(location: str) -> Operative:
    """The Operative of `module` or `module:attribute`; modules of the working directory are found.

    Imports the module. Raises `PluginError`.
    """
    if not _LOCATION.match(location) or location.endswith(".py"):
        hint = " (a module, not a file: images.py is `images`)" if location.endswith(".py") else ""
        raise PluginError(f"--app: {location!r} is not `module` or `module:attribute`{hint}")
    found = _find(location)
    if isinstance(found, type) and issubclass(found, Operative):
        try:
            found = found()
        except Exception as error:
            raise PluginError(f"--app {location}: {_text(error)}") from error
    if isinstance(found, Operative):
        return found
    for point in entry_points(group=GROUP):
        try:
            operative = cast(Maker, point.load())(found, location)
        except Exception as error:
            raise PluginError(f"--app {location}: {error}") from error
        if operative is not None:
            return operative
    what = "has nothing" if isinstance(found, ModuleType) else f"is {type(found).__name__}, nothing"
    raise PluginError(
        f"--app {location}: it {what} that can be served: an Operative, or functions with @task of gbe_operative_python"
    )


def _find(location: str) -> Any:
    name, _, attribute = location.partition(":")
    place = os.getcwd()
    if place not in sys.path:
        sys.path.insert(0, place)
    try:
        with _interruptible():
            found: Any = importlib.import_module(name)
    except SystemExit as error:
        raise PluginError(f"--app {location}: it ends the process when it is imported{_place(error, name)}") from error
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise PluginError(
                f"--app {location}: there is no module {error.name!r}, neither in {place} nor installed"
            ) from error
        raise PluginError(f"--app {location}: {_text(error)}{_place(error, name)}") from error
    except Exception as error:
        raise PluginError(f"--app {location}: {_text(error)}{_place(error, name)}") from error
    for part in attribute.split(".") if attribute else ():
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, [one for one in dir(found) if not one.startswith("_")], 1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise PluginError(f"--app {location}: {name} has no {part!r}{hint}")
        found = getattr(found, part)
    return found


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Somebody's module may wait for ever when it is imported; no loop heeds a signal meanwhile.

    SIGINT and SIGTERM raise KeyboardInterrupt.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _place(error: BaseException, name: str) -> str:
    """The last line of somebody's own code on the way to the error: rather than of what is installed."""
    if isinstance(error, SyntaxError):
        return ""
    frames = [
        frame
        for frame in reversed(traceback.extract_tb(error.__traceback__))
        if not frame.filename.startswith("<") and frame.filename != __file__
    ]
    place = os.path.join(os.getcwd(), "")
    for frame in (*(one for one in frames if one.filename.startswith(place)), *frames):
        return f" ({frame.filename}:{frame.lineno})"
    return f" (while importing {name})"
