"""The contract suite of Operatives, for this one."""

from __future__ import annotations

import pytest

from gbe_operative.operative_suite import OperativeContract, Subject
from gbe_operative_template import TemplateOperative
from gbe_operative_template.operative import TemplateSettings

ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


class TestContract(OperativeContract):
    @pytest.fixture
    def subject(self, tmp_path_factory: pytest.TempPathFactory) -> Subject:
        settings = TemplateSettings(root=tmp_path_factory.mktemp("templates"), timeout=60.0)
        return Subject(
            "template",
            lambda: TemplateOperative(settings=settings),
            completes={"template": "hello {{ who }}", "who": "you", "output_path": "greeting"},
            rejected={"template": "{% if %}"},
            endless={"template": ENDLESS},
        )
