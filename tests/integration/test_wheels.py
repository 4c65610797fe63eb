"""A host installs only the roles it needs: every wheel stands on what it declares, and on nothing else.

The wheels are built once, and our own packages come from nowhere else. Each is installed into
an environment of its own, where all its modules are imported and its commands answer `--help`. Foreign
dependencies come out of uv's cache, hard-linked, where it has them.
"""

import zipfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.environments import Environments, plugins, run
from tests.workspace import members

pytestmark = pytest.mark.wheels

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


def test_every_wheel_works_alone(environments: Environments, subtests: pytest.Subtests) -> None:
    """Those of operatives are installed, asked the same, and then serve, in `test_operative_wheels`."""
    others = [member for member in members() if member not in plugins().values()]
    # Two at a time: most of an installation is waiting for the disk.
    with ThreadPoolExecutor(max_workers=2) as pool:
        checks = {member.name: pool.submit(environments.make_alone, member) for member in others}
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
