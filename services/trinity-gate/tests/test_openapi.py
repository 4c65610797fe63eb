"""The API under requests made from its own description: no 5xx, and every answer is one that is described."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.integration.gate_process import GateProcess

pytestmark = [
    pytest.mark.server,
    # jsonschema's resolver as schemathesis uses it; and what its own tests of strings warn about.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]

KNOWN = {"id": ["gf01", "fuzzed"], "run_id": ["last"]}
"""Ids that exist, so that not everything is answered with 404."""


def known_ids(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Half of the ids are ones that exist."""
    for name, values in KNOWN.items():
        if path_parameters and name in path_parameters and len(str(path_parameters[name])) % 2:
            path_parameters[name] = values[len(str(path_parameters[name])) // 2 % len(values)]
    return path_parameters


def call_all(url: str, examples: int) -> Counter[str]:
    """Calls every operation; what was answered how often, by operation."""
    schema = schemathesis.openapi.from_url(f"{url}openapi.json")
    schema.hook("map_path_parameters")(known_ids)
    calls: Counter[str] = Counter()

    def calling(operation: Any) -> Callable[[], None]:
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        )
        @given(case=operation.as_strategy())
        def call(case: Any) -> None:
            case.call_and_validate(checks=CHECKS, timeout=30)
            calls[operation.label] += 1

        return call

    results: list[Any] = list(schema.get_all_operations())
    for result in results:
        calling(result.ok())()
    return calls


async def prepare(gate: GateProcess) -> None:
    KNOWN["run_id"] = [(await gate.run("gf01"))["run_id"]]
    if "fuzzed" not in [scenario["id"] for scenario in await gate.get("/scenarios")]:
        await gate.post("/scenarios/gf01/clone", {"id": "fuzzed"}, 201)


async def test_every_answer_is_described(gate: GateProcess) -> None:
    await prepare(gate)
    calls = await asyncio.to_thread(call_all, gate.url, 5)
    assert len(calls) >= 24
    assert (await gate.get("/health"))["status"] == "ok"


async def test_limits_and_roles_are_described(gate: GateProcess) -> None:
    paths = (await gate.get("/openapi.json"))["paths"]
    for path, name in (("/history", "limit"), ("/audit", "limit"), ("/runs/{run_id}/logs", "limit")):
        (schema,) = [each["schema"] for each in paths[path]["get"]["parameters"] if each["name"] == name]
        assert (schema["type"], schema["minimum"], schema["maximum"]) == ("integer", 1, 1000)
    for path, method, role in (
        ("/state", "get", "observer"),
        ("/runs", "post", "operator"),
        ("/governance", "post", "overseer"),
        ("/audit", "get", "overseer"),
    ):
        operation = paths[path][method]
        assert operation["description"].endswith(f"Role: {role}.")
        assert operation["security"] == [{}, {"token": []}]
    assert paths["/health"]["get"]["security"] == [{}]


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_every_answer_is_described_at_length(gate: GateProcess) -> None:
    await prepare(gate)
    await asyncio.to_thread(call_all, gate.url, 150)
    assert (await gate.get("/health"))["status"] == "ok"
