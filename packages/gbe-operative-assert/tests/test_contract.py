"""The contract suite of Operatives, for this one."""

from __future__ import annotations

import pytest

from gbe_operative.operative_suite import OperativeContract, Subject
from gbe_operative_assert import AssertOperative


class TestContract(OperativeContract):
    @pytest.fixture
    def subject(self) -> Subject:
        return Subject(
            "assert",
            AssertOperative,
            completes={
                "command": "echo hello",
                "expect_stdout": "hello",
                "expect_stdout_regex": "^h",
                "expect_exit_code": "0",
            },
            rejected={"command": "echo hello", "expect_stdout_json": "{"},
            endless={"command": "sleep 600 & sleep 600"},
        )
