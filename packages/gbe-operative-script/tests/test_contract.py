"""The contract suite of Operatives, for this one."""

from __future__ import annotations

from pathlib import Path

import pytest

from gbe_operative.operative_suite import OperativeContract, Subject
from gbe_operative_script import ScriptOperative


class TestContract(OperativeContract):
    @pytest.fixture
    def subject(self, tmp_path_factory: pytest.TempPathFactory) -> Subject:
        root: Path = tmp_path_factory.mktemp("scripts")
        (root / "greet.sh").write_text('echo "hello $1"\n')
        (root / "endless.sh").write_text("sleep 600 & sleep 600\n")
        return Subject(
            "script",
            lambda: ScriptOperative(root=root),
            completes={"script_path": "greet.sh", "interpreter": "sh", "args": "you", "WORD": "x"},
            rejected={"script_path": "missing.sh"},
            endless={"script_path": "endless.sh", "interpreter": "sh"},
        )
