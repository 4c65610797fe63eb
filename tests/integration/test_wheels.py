"""A host installs only the roles it needs: every wheel stands on what it declares, and on nothing else.

The wheels are built once, and our own packages come from nowhere else. Each is installed into
an environment of its own, where all its modules are imported and its commands answer `--help`. Foreign
dependencies come out of uv's cache, hard-linked, where it has them.
"""

import zipfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.environments import Environments, run
from tests.workspace import Member, members

pytestmark = pytest.mark.wheels

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
        "gbe_operative_command",
        "gbe_operative_shell",
        "gbe_runtime",
    }
    assert {file.name for file in bin_folder.glob("gbe*")} == {"gbe-operative"}
