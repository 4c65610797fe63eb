"""Where the files are that a job of `gbe run` names by path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

ROOTS: Final = ("GBE_SCRIPT_ROOT", "GBE_TEMPLATE_ROOT")
"""Variables of plug-ins, each the directory that the paths of its tasks can't leave."""


def roots_in(folder: Path | None) -> dict[str, str]:
    """These variables for an Operative of a job in `folder`; those that somebody has set stay as they are."""
    if folder is None:
        return {}
    return {name: os.path.abspath(folder) for name in ROOTS if not os.environ.get(name)}
