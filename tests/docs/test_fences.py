"""The runner of the examples notices what it is there to notice."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.fences import commands, fences
from tests.workspace import ROOT


def run_python(file: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.docs.run_python_fences", str(file)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return tmp_path / "page.md"


def test_finds_each_kind_of_block(page: Path) -> None:
    page.write_text(
        "# title\n```python\nx = 1\n```\n\n```python notest\nboom()\n```\n"
        "````console\n$ cat <<END\n> ```\n> END\n```\n$ true\n````\n```yaml job.yaml\nname: x\n```\n"
    )
    python, left_alone, console, job = fences(page)
    assert python.is_a("python")
    assert (python.text, python.line) == ("x = 1\n", 3)
    assert not left_alone.is_a("python")
    assert commands(console) == "cat <<END\n```\nEND\ntrue\n"
    assert (job.file_name, job.text) == ("job.yaml", "name: x\n")
    assert python.file_name is None


def test_blocks_share_a_namespace_and_may_await(page: Path) -> None:
    page.write_text(
        "```python\nimport asyncio\nasync def two(): return 2\n```\n```python\nx = await two()\n```\n"
        "```python\nassert asyncio.run(two()) == x\nprint('done')\n```\n"
    )
    done = run_python(page)
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


def test_a_failing_block_is_named_by_file_and_line(page: Path) -> None:
    page.write_text("text\n\n```python\nx = 1\nassert x == 2\n```\n")
    done = run_python(page)
    assert done.returncode == 1
    assert f'{page}", line 5' in done.stderr
    assert "assert x == 2" in done.stderr
