"""What steps declare of their data, on the bus and within the process."""

from __future__ import annotations

import pytest

from gbe_nexus import Transport
from gbe_oracle.oracle import BusOracle
from tests.molecules.ecumene import Ecumene

JOB = """
name: outer
tasks:
  - name: m
    task_type: molecule
    params:
      mode: MODE
      molecule:
        molecule: inner
        steps:
          - name: make
            operative: shell
            params: {command: 'echo "{\\"n\\": N}"'}
            output_schema: {properties: {n: {type: integer}}}
          - name: use
            operative: shell
            depends_on: [make]
            input_from: {N: make.n}
            input_schema: {properties: {N: {maximum: 5}}}
            params: {command: 'echo "got $N"'}
"""


@pytest.mark.parametrize("mode", ["bus", "local"])
@pytest.mark.parametrize(
    ("n", "says"),
    [
        ("5", None),
        ("0.5", "output does not match output_schema at $.n: 0.5 is not of type 'integer'"),
        ("6", "input does not match input_schema at $.N: 6 is greater than the maximum of 5"),
    ],
)
async def test_steps_are_checked(bus: Transport, oracle: BusOracle, mode: str, n: str, says: str | None) -> None:
    async with Ecumene.on(bus) as ecumene:
        summary = await ecumene.run(JOB.replace("MODE", mode).replace(" N}", f" {n}}}"))
        assert summary.error == (says or "")


async def test_the_data_of_the_whole_is_checked_within_the_process(bus: Transport, oracle: BusOracle) -> None:
    declared = (
        JOB.replace("MODE", "local")
        .replace(" N}", " 1}")
        .replace("task_type: molecule\n", "task_type: molecule\n    output_schema: {required: [use, more]}\n")
    )
    async with Ecumene.on(bus) as ecumene:
        assert (await ecumene.run(declared)).error == (
            "output does not match output_schema at $: 'more' is a required property"
        )
