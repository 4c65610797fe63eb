"""A host installs only what its roles need: an Oracle from one environment, an Operative from another, one job."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gbe_nexus_nats.server import EmbeddedServer
from tests.integration.environments import Environments, run
from tests.integration.site import QUICK, Site, output, shell

pytestmark = [pytest.mark.server, pytest.mark.wheels]

FIND = "import importlib.util, sys; print(*[m for m in sys.argv[1:] if importlib.util.find_spec(m)])"


async def test_roles_from_two_environments(environments: Environments, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        loop = asyncio.get_running_loop()
        oracle_bin, operative_bin = await asyncio.gather(
            loop.run_in_executor(pool, environments.make, "oracle-host", "gbe-oracle", "gbe-nexus-nats"),
            loop.run_in_executor(pool, environments.make, "operative-host", "gbe-operative-shell", "gbe-nexus-nats"),
        )
    modules = ("gbe_oracle", "gbe_operative", "gbe_overseer")
    for bin_folder, expected in ((oracle_bin, ["gbe_oracle"]), (operative_bin, ["gbe_operative"])):
        found = run(bin_folder / "python", "-I", "-c", FIND, *modules, cwd=tmp_path)
        assert found.split() == expected

    async with Site(EmbeddedServer(), tmp_path, make_streams=False) as site:
        oracle = site.role("oracle", [oracle_bin / "gbe-oracle"], QUICK)
        operative = site.role("operative", [operative_bin / "gbe-operative", "--handles", "shell:2"], {})
        await oracle.start()
        await site.follow()
        await operative.start()
        job_id = await site.submit(
            shell("a", """echo '{"x": 1}'"""),
            shell("b", "echo $(($X + 1))", ["a"], input_from={"X": "a.x"}),
            shell("c", "echo $(($X + 2))", ["a"], input_from={"X": "a.x"}),
            shell("d", "echo $(($B + $C))", ["b", "c"], input_from={"B": "b", "C": "c"}),
        )
        assert await site.end(job_id) == "completed"
        assert output((await site.tasks(job_id))["d"]) == ["5"]
        for role in (operative, oracle):
            assert await role.stop() == 0, role.log.read_text()
