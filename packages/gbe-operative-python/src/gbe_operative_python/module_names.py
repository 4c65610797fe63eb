"""Which module a task runs: names that come from jobs, and never lead out of the configured package."""

from __future__ import annotations

import keyword
import re

LONGEST = 128

_PART = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class InvalidModule(ValueError):
    """The text says what is wrong with the name."""


def check_package(name: str) -> str:
    """The name of a package, as the owner of the host gave it. Raises `InvalidModule`."""
    if not _is_dotted(name):
        raise InvalidModule(f"{name!r} is not the name of a package, such as gbe_tasks or acme.tasks")
    return name


def module_of(package: str, task_type: str, module: str | None) -> str:
    """The module in the package: `module` where the task names one, else the task type with `_` for `-`.

    Raises `InvalidModule`. Whatever is given, the result begins with `package` and a dot, and is a dotted name.
    """
    if module is None:
        name = task_type.replace("-", "_")
        if not _is_dotted(name):
            raise InvalidModule(f"task type {task_type!r} makes no module's name; say which with the param `module`")
    else:
        name = module
        if len(name) > LONGEST or not _is_dotted(name):
            raise InvalidModule(
                f"param 'module': {name[:LONGEST]!r} is not a module of the package {package}: "
                "names as in resize_image or images.resize, without the package"
            )
    return f"{package}.{name}"


def _is_dotted(name: str) -> bool:
    return all(_PART.match(part) and not keyword.iskeyword(part) for part in name.split("."))
