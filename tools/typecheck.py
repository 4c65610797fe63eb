"""Run mypy over everything: `python tools/typecheck.py [mypy's options]`.

The tests of each package lie in a folder of their own without `__init__.py`, so two of them may
have the same module name (`conftest`, say), which one run of mypy refuses. What repeats a name
goes into a further run, as many as it takes.
"""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def runs(test_files: Iterable[Path]) -> list[list[Path]]:
    """Share the files out so that no name occurs twice in one run."""
    shares: list[dict[str, Path]] = []
    for file in test_files:
        free = next((share for share in shares if file.stem not in share), None)
        if free is None:
            shares.append(free := {})
        free[file.stem] = file
    return [list(share.values()) for share in shares]


def main(options: list[str]) -> int:
    """Type-check all the runs, and fail when one of them does."""
    sources = sorted([*ROOT.glob("packages/*/src"), *ROOT.glob("services/*/src"), ROOT / "tests", ROOT / "tools"])
    beside = sorted([*ROOT.glob("packages/*/tests/**/*.py"), *ROOT.glob("services/*/tests/**/*.py")])
    first, *further = runs([ROOT / "conftest.py", *beside])
    worst = 0
    for files in [sources + first, *further]:
        done = subprocess.run([sys.executable, "-m", "mypy", *options, *map(str, files)], cwd=ROOT, check=False)
        worst = max(worst, done.returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
