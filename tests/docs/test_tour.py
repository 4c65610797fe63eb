"""The tour in the root README works as it stands: one session, from the first `$` to the last."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.fences import commands, fences
from tests.workspace import ROOT


@pytest.mark.server
def test_the_tour_of_the_readme(tmp_path: Path) -> None:
    script = "".join(commands(fence) for fence in fences(ROOT / "README.md") if fence.is_a("console"))
    assert "gbe up" in script, "the tour is gone"
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GBE_", "XDG_")) or name == "GBE_NATS_SERVER"
    }
    environment["HOME"] = str(tmp_path)
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    output = tmp_path / "output"
    with output.open("wb") as file:
        # A session of its own: with it goes what the tour leaves running when a step of it fails.
        tour = subprocess.Popen(
            ["sh", "-exc", script],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        try:
            code = tour.wait(90)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(tour.pid, signal.SIGTERM)
    said = output.read_text(encoding="utf-8")
    assert code == 0, said
    # What the text promises beside exit codes.
    assert "exit code 2" in said
    assert "exit code 1" in said
    assert "the same job" in said
    assert "warmest on average: Basel with 7 C" in said
