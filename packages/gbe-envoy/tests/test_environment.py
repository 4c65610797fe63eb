"""What is in a command's environment, and what may not be."""

from __future__ import annotations

import pytest

from gbe_envoy.adapter import PROTECTED, ParamError, build_environment
from gbe_envoy.adapter.environment import TOTAL_BYTES, VALUE_BYTES

HOST = {
    "PATH": "/bin",
    "HOME": "/root",
    "LC_ALL": "C",
    "LC_TIME": "de",
    "AWS_SECRET_ACCESS_KEY": "s",
    "GBE_NATS_TOKEN": "t",
    "LD_PRELOAD": "x",
}


def test_only_what_is_allowed_is_inherited() -> None:
    allowed = {"PATH": "/bin", "HOME": "/root", "LC_ALL": "C", "LC_TIME": "de"}
    assert build_environment({}, base=HOST) == allowed
    assert build_environment({}, base=HOST, allow=["AWS_*"]) == {"AWS_SECRET_ACCESS_KEY": "s"}
    assert build_environment({}, base=HOST, allow=[]) == {}


def test_params_and_extra() -> None:
    result = build_environment(
        {"SOURCE_URL": "http://x", "LANG": "de", "empty": ""}, base=HOST, allow=["LANG"], extra={"GBE_TASK_ID": "7"}
    )
    assert result == {"SOURCE_URL": "http://x", "LANG": "de", "empty": "", "GBE_TASK_ID": "7"}


@pytest.mark.parametrize("name", [name.replace("*", "X") for name in PROTECTED])
def test_protected_names(name: str) -> None:
    with pytest.raises(ParamError, match=f"param '{name}': is a protected") as caught:
        build_environment({name: "x"}, base=HOST)
    assert caught.value.param == name


def test_names_that_only_look_protected() -> None:
    params = {"path": "1", "MYPATH": "2", "GIT": "3", "LDX": "4", "user": "5"}
    assert build_environment(params, base={}) == params


@pytest.mark.parametrize("name", ["", "a-b", "a.b", "1a", "a b", "a=b", "ä", "a\n", "a\0"])
def test_names_that_cannot_be_variables(name: str) -> None:
    with pytest.raises(ParamError, match="cannot be an environment variable"):
        build_environment({name: "x"}, base={})


def test_values() -> None:
    with pytest.raises(ParamError, match=r"param 'A': contains a NUL.*A_ref"):
        build_environment({"A": "x\0y"}, base={})
    assert build_environment({"A": "x" * VALUE_BYTES}, base={})
    with pytest.raises(ParamError, match=r"param 'A': 98305 bytes .*limit 98304 bytes.*use A_ref"):
        build_environment({"A": "x" * (VALUE_BYTES + 1)}, base={})
    with pytest.raises(ParamError, match="98306 bytes"):
        build_environment({"A": "ä" * (VALUE_BYTES // 2 + 1)}, base={})
    with pytest.raises(ParamError, match="cannot be encoded"):
        build_environment({"A": "\ud800"}, base={})


def test_the_total() -> None:
    params = {f"P{index}": "x" * 90_000 for index in range(12)}
    with pytest.raises(ParamError, match=rf"param 'BIG': the environment is \d+ bytes \(limit {TOTAL_BYTES} bytes\)"):
        build_environment({**params, "BIG": "x" * 95_000}, base={})
    assert build_environment(dict(list(params.items())[:11]), base={})
    with pytest.raises(ParamError, match="without any param"):
        build_environment({}, base={}, extra={"GBE_INPUT": "x" * TOTAL_BYTES})
