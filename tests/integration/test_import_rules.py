"""A rule that cannot be broken is no rule: every import contract notices its own violation."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.workspace import ROOT, members

# For each contract, a file and a line that break it. The line is put into a copy of the sources.
VIOLATIONS = {
    "jobs-domain": ("gbe_jobs_domain", "import gbe_nexus"),
    "nexus": ("gbe_nexus", "import gbe_jobs_domain"),
    "nexus-memory": ("gbe_nexus_memory", "import gbe_nexus_nats"),
    "nexus-nats": ("gbe_nexus_nats", "import gbe_jobs_domain"),
    "conformance": ("gbe_conformance", "import gbe_nexus_memory"),
    "runtime": ("gbe_runtime", "import gbe_jobs_domain"),
    "envoy": ("gbe_envoy", "import gbe_operative"),
    "oracle": ("gbe_oracle", "import gbe_operative"),
    "operative": ("gbe_operative", "from gbe_oracle import core"),
    "operative-aether": ("gbe_operative_aether", "import gbe_envoy"),
    "operative-assert": ("gbe_operative_assert", "import gbe_operative_shell"),
    "operative-command": ("gbe_operative_command", "import gbe_operative_shell"),
    "operative-http": ("gbe_operative_http", "import gbe_envoy"),
    "operative-llm": ("gbe_operative_llm", "import gbe_operative_http"),
    "operative-molecule": ("gbe_operative_molecule", "import gbe_oracle"),
    "operative-python": ("gbe_operative_python", "import gbe_nexus_nats"),
    "operative-script": ("gbe_operative_script", "import gbe_operative_shell"),
    "operative-shell": ("gbe_operative_shell", "import gbe_nexus_nats"),
    "operative-template": ("gbe_operative_template", "import gbe_nexus_nats"),
    "aether": ("gbe_aether", "import gbe_operative_aether"),
    "overseer": ("gbe_overseer", "import gbe_ecumene"),
    "nats": ("gbe_runtime", "import nats.js"),
    "pure-core": ("gbe_oracle/core", "import asyncio"),
}


def test_every_contract_can_be_broken(tmp_path: Path) -> None:
    for member in members():
        shutil.copytree(member.source, tmp_path / member.module, ignore=shutil.ignore_patterns("__pycache__"))
    for number, (package, line) in enumerate(VIOLATIONS.values()):
        (tmp_path / package / f"violation_{number}.py").write_text(line + "\n")

    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--config", str(ROOT / "pyproject.toml")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )

    configured = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert {c["id"] for c in configured} == set(VIOLATIONS), "a contract without a violation to prove it"
    broken = set(re.findall(r"^(.*) BROKEN", done.stdout, flags=re.MULTILINE))
    assert broken == {c["name"] for c in configured}, done.stdout + done.stderr
    assert done.returncode != 0


def test_every_package_is_under_a_contract() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    modules = {member.module for member in members()}
    assert set(settings["root_packages"]) == modules
    # `services/*` put everything together and may import anything.
    in_packages = {member.module for member in members() if member.folder.parent.name == "packages"}
    assert {c["package"] for c in settings["contracts"] if c["type"] == "may_import"} == in_packages
    only_nats = next(c for c in settings["contracts"] if c["id"] == "nats")
    assert set(only_nats["source_modules"]) == modules - {"gbe_nexus_nats"}
