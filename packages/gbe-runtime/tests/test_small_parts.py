"""Back-off, metrics, identities, payloads, and what an import costs."""

import os
import re
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gbe_runtime
from gbe_runtime.backoff import retry_delay
from gbe_runtime.identity import new_identity
from gbe_runtime.lifecycle_payloads import LIFECYCLE_DECODER, LifecyclePayload, lifecycle_subject
from gbe_runtime.metrics import Metrics


def test_delays_grow_up_to_the_maximum() -> None:
    assert [retry_delay(n, 1, 2, 10, lambda: 1.0) for n in (1, 2, 3, 4, 5, 10_000)] == [1, 2, 4, 8, 10, 10]


@given(st.integers(-5, 10**6), st.floats(0, 1e6), st.floats(0, 100), st.floats(0, 1e6))
def test_a_delay_is_never_negative_nor_longer_than_the_maximum(n: int, base: float, factor: float, most: float) -> None:
    assert 0 <= retry_delay(n, base, factor, most) <= most


def test_metrics() -> None:
    metrics = Metrics()
    metrics.counter("done").add()
    metrics.counter("done").add(2)
    metrics.gauge("free").set(4)
    metrics.gauge("held", lambda: 7)
    assert metrics.snapshot() == {"done": 3, "free": 4, "held": 7}
    with pytest.raises(ValueError, match="gauge"):
        metrics.counter("free")
    with pytest.raises(ValueError, match="counter"):
        metrics.gauge("done")


def test_an_identity_is_one_token_and_never_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "büro pc*>.example.org")
    assert re.fullmatch(rf"oracle-b-ro-pc---{os.getpid()}-[0-9a-f]{{8}}", new_identity("oracle"))
    assert new_identity("oracle") != new_identity("oracle")


def test_lifecycle_payloads_ignore_what_newer_releases_add() -> None:
    body = (
        b'{"v":1,"ts":5,"id":"x","data":{"identity":"i","role":"oracle","host":"h","pid":1,"version":"9","mood":"fine",'
        b'"started_at":4,"heartbeat_interval":5,"capabilities":{"handles":["shell"]},"load":{"jobs":3}}}'
    )
    payload = LIFECYCLE_DECODER.decode(body).data
    assert payload == LifecyclePayload("i", "oracle", "h", 1, "9", 4, 5.0, {"handles": ["shell"]}, {"jobs": 3})
    assert msgspec.json.schema(LifecyclePayload)
    assert lifecycle_subject("oracle", "started") == "gbe.lifecycle.oracle.started"


def test_every_public_name_exists() -> None:
    for name in gbe_runtime._HOME:
        assert getattr(gbe_runtime, name).__name__ == name
        assert name in dir(gbe_runtime)
    with pytest.raises(AttributeError, match="nonsense"):
        gbe_runtime.nonsense  # noqa: B018


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("gbe_runtime", {"asyncio", "msgspec", "gbe_nexus", "argparse", "logging"}),
        ("gbe_runtime.bus_role", {"argparse", "pydantic", "tomllib", "subprocess_", "gbe_runtime.settings"}),
        ("gbe_runtime.settings", {"argparse", "tomllib", "pydantic", "difflib"}),
        ("gbe_runtime.lifecycle_suite", {"pytest"}),
    ],
)
def test_an_import_loads_no_more_than_it_needs(module: str, absent: set[str]) -> None:
    script = f"import sys, {module}; print(*sys.modules)"
    loaded = set(subprocess.check_output([sys.executable, "-c", script], text=True).split())
    assert not loaded & absent
