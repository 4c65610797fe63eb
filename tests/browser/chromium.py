"""The Chromium these tests drive: whichever this machine has, talked to by Playwright's own protocol."""

import os
import shutil
from pathlib import Path
from typing import Final

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

ARGUMENTS: Final = (
    "--no-sandbox",  # the tests run as root in a container
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find() -> Path | None:
    """`$GBE_CHROMIUM`, else the first of the usual names on PATH; None where there is none."""
    named = os.environ.get("GBE_CHROMIUM")
    if named:
        return Path(named)
    return next((Path(found) for name in NAMES if (found := shutil.which(name))), None)
