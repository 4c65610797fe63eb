"""Environments in which nothing is installed but what is asked for, from wheels that are built once.

Our own packages come from nowhere else. Foreign dependencies come out of uv's cache, hard-linked, where it has them.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workspace import ROOT, Member, members

# Imports every module of a package.
IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not found.name.endswith((".__main__", ".testing")):  # the latter is what the extra of that name is for
        importlib.import_module(found.name)
"""

EXPORT_OPTIONS = ("--no-emit-workspace", "--no-hashes", "--no-header", "--no-annotate")


def find_uv() -> str:
    """The uv that runs us, or the one on PATH, or the one the Makefile brought along."""
    private = ROOT / ".tools" / "uv" / "bin" / "uv"
    found = os.environ.get("UV") or shutil.which("uv") or (str(private) if private.exists() else None)
    if found is None:
        pytest.fail("no uv: run this through `make test` or `uv run pytest`")
    return found


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command that has to succeed, outside of this environment, and return what it printed."""
    foreign = {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"}
    environment = {name: value for name, value in os.environ.items() if name not in foreign}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


def plugins() -> dict[str, Member]:
    """Plug-ins of operatives, and the distributable that has each; those of gbe-operative itself are for tests."""
    return {
        name: member
        for member in members()
        if member.name != "gbe-operative"
        for name in member.project.get("entry-points", {}).get("gbe.operatives", {})
    }


class Environments:
    """Makes environments in which nothing is installed but what is asked for."""

    def __init__(self, uv: str, folder: Path) -> None:
        self._uv = uv
        self._folder = folder
        self._constraints = folder / "constraints.txt"
        self.wheels = folder / "wheels"

    def build(self) -> None:
        """Build the wheel of every member, and note from where everything is to come."""
        run(self._uv, "build", "--all-packages", "--wheel", "--quiet", "--out-dir", self.wheels)
        # Foreign packages in the versions of the lock, ours from here: no index may answer for them.
        locked = run(self._uv, "export", "--quiet", "--frozen", "--all-packages", "--all-extras", *EXPORT_OPTIONS)
        ours = [f"{member.name} @ {self.wheel(member).as_uri()}" for member in members()]
        self._constraints.write_text("\n".join([locked, *ours, ""]))

    def wheel(self, member: Member) -> Path:
        """The wheel that was built for a member."""
        [wheel] = self.wheels.glob(f"{member.name.replace('-', '_')}-{member.project['version']}-*.whl")
        return wheel

    def make(self, name: str, *requirements: str) -> Path:
        """Make an environment with these installed, and return its `bin`."""
        where = self._folder / name
        run(self._uv, "venv", "--quiet", "--python", sys.executable, where)
        return self.add(where / "bin", *requirements)

    def make_alone(self, member: Member) -> Path:
        """Make one for a single wheel and what that declares, import all of it there, ask its commands for help."""
        bin_folder = self.make(f"alone-{member.name}", member.name)
        run(bin_folder / "python", "-I", "-W", "error", "-c", IMPORT_ALL, member.module, cwd=self.wheels)
        for script in member.scripts:
            assert run(bin_folder / script, "--help", cwd=self.wheels), f"{script} --help says nothing"
        return bin_folder

    def add(self, bin_folder: Path, *requirements: str) -> Path:
        """Install more there."""
        where = bin_folder.parent
        install = [self._uv, "pip", "install", "--quiet", "--python", str(where / "bin" / "python")]
        install += ["--constraint", str(self._constraints)]
        # From outside of the workspace, whose tables would give the sources instead of the wheels.
        try:
            run(*install, "--offline", *requirements, cwd=self._folder)
        except AssertionError:  # something is not in uv's cache yet: a clean machine
            run(*install, *requirements, cwd=self._folder)
        return where / "bin"
