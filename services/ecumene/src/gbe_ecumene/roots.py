"""Where the files are that a job of `gbe run` names by path, and the Python code beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

ROOTS: Final = ("GBE_SCRIPT_ROOT", "GBE_TEMPLATE_ROOT")
"""Variables of plug-ins, each the directory that the paths of its tasks can't leave."""

MODULES: Final = "GBE_PYTHON_PATH"
"""The python plug-in's: where the package is whose modules are tasks."""


def roots_in(folder: Path | None, *, app: bool = False) -> dict[str, str]:
    """Variables for an Operative of a job in `folder`; those that somebody has set stay as they are.

    `app`: the job names a module beside it that is to be imported. Else nothing there may get between our imports.
    """
    if folder is None:
        return {}
    place = os.path.abspath(folder)
    found = {name: place for name in ROOTS if not os.environ.get(name)}
    if not os.environ.get(MODULES):
        found[MODULES] = os.pathsep.join(dict.fromkeys([place, os.getcwd()]))
    if app:
        found["PYTHONPATH"] = os.pathsep.join(filter(None, [place, os.environ.get("PYTHONPATH")]))
    return found
