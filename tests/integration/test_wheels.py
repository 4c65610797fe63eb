"""A host installs only the roles it needs: every wheel stands on what it declares, and on nothing else.

The wheels are built once, and our own packages come from nowhere else. Each is installed into
an environment of its own, where all its modules are imported and its commands answer `--help`. Foreign
dependencies come out of uv's cache, hard-linked, where it has them.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.workspace import ROOT, Member, members

pytestmark = pytest.mark.wheels

EXPORT_OPTIONS = ("--no-emit-workspace", "--no-hashes", "--no-header", "--no-annotate")

# Imports every module of a package.
IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not found.name.endswith((".__main__", ".testing")):  # the latter is what the extra of that name is for
        importlib.import_module(found.name)
"""

# Prints those of the modules named on the command line that can be found.
FINDABLE = """
import importlib.util, sys
print(*[name for name in sys.argv[1:] if importlib.util.find_spec(name)])
"""


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
        install = [self._uv, "pip", "install", "--quiet", "--python", str(where / "bin" / "python")]
        install += ["--constraint", str(self._constraints)]
        # From outside of the workspace, whose tables would give the sources instead of the wheels.
        try:
            run(*install, "--offline", *requirements, cwd=self._folder)
        except AssertionError:  # something is not in uv's cache yet: a clean machine
            run(*install, *requirements, cwd=self._folder)
        return where / "bin"


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environments]:
    folder = tmp_path_factory.mktemp("wheels")
    made = Environments(find_uv(), folder)
    made.build()
    yield made
    shutil.rmtree(folder, ignore_errors=True)  # a dozen environments are not worth keeping


def test_no_file_belongs_to_two_wheels(environments: Environments) -> None:
    owners: dict[str, list[str]] = defaultdict(list)
    wheels = sorted(environments.wheels.glob("*.whl"))
    assert len(wheels) == len(members())
    for wheel in wheels:
        for file in zipfile.ZipFile(wheel).namelist():
            if not file.endswith("/"):
                owners[file].append(wheel.name)
    assert {file: by for file, by in owners.items() if len(by) > 1} == {}


def test_every_wheel_carries_its_type_marker(environments: Environments) -> None:
    for member in members():
        assert f"{member.module}/py.typed" in zipfile.ZipFile(environments.wheel(member)).namelist()


def check_alone(environments: Environments, member: Member) -> None:
    """Install one wheel with only what it declares, import all of it, and ask its commands for help."""
    bin_folder = environments.make(f"alone-{member.name}", member.name)
    run(bin_folder / "python", "-I", "-W", "error", "-c", IMPORT_ALL, member.module, cwd=environments.wheels)
    for script in member.scripts:
        assert run(bin_folder / script, "--help", cwd=environments.wheels), f"{script} --help says nothing"


def test_every_wheel_works_alone(environments: Environments, subtests: pytest.Subtests) -> None:
    # Two at a time: most of an installation is waiting for the disk.
    with ThreadPoolExecutor(max_workers=2) as pool:
        checks = {member.name: pool.submit(check_alone, environments, member) for member in members()}
        for name, check in checks.items():
            with subtests.test(name):
                check.result()


def test_a_worker_host_has_no_other_role(environments: Environments) -> None:
    bin_folder = environments.make("worker", "gbe-operative-shell", "gbe-nexus-nats")
    ours = [member.module for member in members()]
    findable = run(bin_folder / "python", "-I", "-c", FINDABLE, *ours, cwd=environments.wheels).split()
    assert set(findable) == {
        "gbe_envoy",
        "gbe_jobs_domain",
        "gbe_nexus",
        "gbe_nexus_nats",
        "gbe_operative",
        "gbe_operative_shell",
        "gbe_runtime",
    }
    assert {file.name for file in bin_folder.glob("gbe*")} == {"gbe-operative"}
