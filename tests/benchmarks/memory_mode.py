"""A job in memory mode, timed after the imports: what `gbe run --transport memory` does between them and its exit."""

from __future__ import annotations

import asyncio
import contextlib
import io
import time
from pathlib import Path

from gbe_ecumene.running import run_job
from gbe_jobs_domain.documents import load_file
from gbe_runtime.settings import BusSettings


def run(job: str) -> float:
    """Seconds of the second run in this process: the first one does the imports that wait for their use."""
    _once(job)
    return _once(job)


def _once(job: str) -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        began = time.perf_counter()
        code = asyncio.run(run_job(load_file(Path(job)), BusSettings(), in_memory=True, json=True, quiet=True))
        elapsed = time.perf_counter() - began
    if code:
        raise RuntimeError(f"the job ended with {code}")
    return elapsed
