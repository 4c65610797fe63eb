"""Which task types are served, by `gbe run` for one job and by `gbe up` for all."""

from __future__ import annotations

import pytest

from gbe_ecumene.handles import all_handles, handles_for, types_of
from gbe_jobs_domain.definitions import JobDefinition, TaskDefinition
from gbe_operative.plugins import installed
from gbe_runtime.errors import ConfigurationError


def job(*types: str) -> JobDefinition:
    return JobDefinition("test", "test", [TaskDefinition(f"t{i}", name) for i, name in enumerate(types)])


def test_a_type_is_served_by_the_plug_in_of_its_name() -> None:
    assert handles_for(job("shell", "mock", "shell"), None) == "mock,shell"


def test_a_type_that_nothing_serves_is_left_to_wait() -> None:
    assert handles_for(job("shell", "x-rays"), None) == "shell"
    assert handles_for(job("x-rays"), None) == ""


def test_what_is_asked_for_counts_more_and_adds_to_it() -> None:
    assert handles_for(job("shell", "data-fetch"), "data-fetch=shell:3") == "data-fetch=shell:3,shell"


def test_the_types_of_an_app_come_first() -> None:
    assert handles_for(job("shell", "resize", "x-rays"), None, ["resize", "other"]) == "resize,shell"
    assert handles_for(job("resize"), "resize:2", ["resize"]) == "resize=resize:2"
    assert handles_for(job("resize"), "resize=shell", ["resize"]) == "resize=shell"
    assert all_handles(None, ["shell", "resize"]).startswith("shell,resize,")
    assert all_handles("resize:3", ["resize"]) == "resize=resize:3"


def test_an_app_that_can_not_be_loaded() -> None:
    assert types_of(None) == ()
    with pytest.raises(ConfigurationError, match="--app no_such_app: there is no module"):
        types_of("no_such_app")


def test_up_serves_all_that_is_installed_but_what_is_for_tests() -> None:
    assert {*all_handles(None).split(",")} == {*installed()} - {"mock"}
    assert all_handles("noop=mock:8") == "noop=mock:8"


@pytest.mark.parametrize(
    ("text", "complaint"), [("x=x-rays", "no Operative 'x-rays' is installed here"), ("Shell", "--handles")]
)
def test_what_can_not_be_served_is_said(text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        all_handles(text)
