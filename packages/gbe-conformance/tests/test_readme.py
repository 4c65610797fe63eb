"""The README's example is a test file: it is run as one, as a third party would."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
INI = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"


def test_the_example_runs_and_passes(tmp_path: Path) -> None:
    example = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[0]
    (tmp_path / "test_my_bus.py").write_text(example)
    (tmp_path / "pytest.ini").write_text(INI + "filterwarnings = error\n")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "TestJournal or fields or publish", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    assert re.search(r"^[2-9]\d passed", run.stdout, re.MULTILINE), run.stdout


def test_a_failure_explains_itself(tmp_path: Path) -> None:
    """Asserts in the suites are rewritten, so that they show what they compared."""
    (tmp_path / "test_broken.py").write_text(
        "from gbe_conformance.delivery import floor_is\n"
        "class Bus:\n    stream = 's'\n"
        "    class transport:\n        async def consumer_state(*_):\n            return Bus\n"
        "    ack_floor = 7\n"
        "async def test_it():\n    await floor_is(Bus, 3)\n"
    )
    (tmp_path / "pytest.ini").write_text(INI)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "assert 7 <= 3" in run.stdout
