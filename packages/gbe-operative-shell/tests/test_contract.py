"""The contract suite of Operatives, for this one."""

from __future__ import annotations

import pytest

from gbe_operative.operative_suite import OperativeContract, Subject
from gbe_operative_shell import ShellOperative


class TestContract(OperativeContract):
    @pytest.fixture
    def subject(self) -> Subject:
        return Subject(
            "shell",
            ShellOperative,
            completes={"command": "echo hello", "WORD": "x", "stdin": "y"},
            rejected={"WORD": "no command"},
            endless={"command": "sleep 600 & sleep 600"},
        )
