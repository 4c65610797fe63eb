"""Every package's README shows how the package is used, and what it shows works."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.fences import commands, fences
from tests.workspace import ROOT, Member, members

every_member = pytest.mark.parametrize("member", members(), ids=str)


def readme(member: Member) -> Path:
    return member.folder / "README.md"


def run_example(command: list[str], folder: Path) -> None:
    """Run a command as a reader would, in a folder that holds what the examples use."""
    # The developer's own settings are not the reader's; where to find the server is the machine's matter.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("GBE_") or name == "GBE_NATS_SERVER"
    }
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    environment["HOME"] = str(folder)
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}{done.stderr}"


@pytest.fixture
def folder(member: Member, tmp_path: Path) -> Path:
    """A folder with the files that the README's examples name."""
    for fence in fences(readme(member)):
        if fence.file_name:
            (tmp_path / fence.file_name).write_text(fence.text, encoding="utf-8")
    return tmp_path


@every_member
def test_readme_has_an_example(member: Member) -> None:
    assert any(f.is_a("python") or (f.is_a("console") and commands(f).strip()) for f in fences(readme(member))), (
        f"{readme(member).relative_to(ROOT)} has no example: no ```python, no ```console with a `$ ` line"
    )


@every_member
def test_python_examples_run(member: Member, folder: Path) -> None:
    if any(fence.is_a("python") for fence in fences(readme(member))):
        runner = [sys.executable, "-W", "error", "-m", "tests.docs.run_python_fences"]
        run_example([*runner, str(readme(member))], folder)


@every_member
def test_console_examples_run(member: Member, folder: Path) -> None:
    for fence in fences(readme(member)):
        if fence.is_a("console"):
            run_example(["sh", "-ec", commands(fence)], folder)
