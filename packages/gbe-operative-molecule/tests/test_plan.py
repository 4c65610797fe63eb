"""From a molecule task to its inner job, without a bus. What needs one is in `tests/molecules`."""

from __future__ import annotations

import pytest

from gbe_jobs_domain.ids import check_job_id
from gbe_jobs_domain.outcomes import FailureKind
from gbe_jobs_domain.payloads import Param, SecretRef, TaskQueued
from gbe_operative.contract import OperativeError
from gbe_operative_molecule.plan import SHOWN, inner_definition, lineage_of, plan

DOCUMENT = """
molecule: greet
vars: {name: world}
steps:
  - {name: say, operative: shell, params: {command: "echo ${{ vars.name }}"}}
"""


def a_task(depth: int = 0, lineage: tuple[str, ...] = (), **params: Param) -> TaskQueued:
    return TaskQueued(
        task_id="task_a_0",
        job_id="job_a",
        org_id="org_acme",
        job_type="a",
        task_name="m",
        task_type="molecule",
        params=params,
        depth=depth,
        lineage=list(lineage),
    )


def refusal(task: TaskQueued, **params: str) -> str:
    with pytest.raises(OperativeError) as refused:
        plan(task, 1, params, 8)
    assert refused.value.kind is FailureKind.REJECTED
    return str(refused.value)


def test_every_param_that_is_not_the_molecules_own_is_a_variable() -> None:
    found = plan(a_task(), 1, {"molecule": DOCUMENT, "mode": "local", "name": "Ada", "file_ref": "store://a/b"}, 8)
    assert (found.mode, found.source, found.given) == ("local", "molecule", DOCUMENT)
    assert found.variables == {"name": "Ada", "file_ref": "store://a/b"}


def test_the_inner_job_is_the_same_for_an_attempt_and_another_for_the_next() -> None:
    first, again, next_one = (plan(a_task(), attempt, {"molecule_ref": "greet"}, 8).child for attempt in (1, 1, 2))
    assert first == again != next_one
    assert check_job_id(first) == first


def test_the_bus_is_the_default() -> None:
    assert plan(a_task(), 1, {"molecule_ref": "greet@2"}, 8).mode == "bus"


@pytest.mark.parametrize(
    ("params", "found"),
    [({}, "none of them"), ({"molecule": "x", "molecule_ref": "y"}, "molecule and molecule_ref")],
)
def test_it_has_exactly_one_source(params: dict[str, str], found: str) -> None:
    assert refusal(a_task(), **params).endswith(f"molecule_path, molecule_ref; found {found}")


def test_a_path_means_nothing_to_an_operative() -> None:
    assert "read where a job is submitted" in refusal(a_task(), molecule_path="/etc/passwd")


def test_an_unknown_mode_says_what_there_is() -> None:
    assert (
        refusal(a_task(), molecule_ref="x", mode="remote") == "param 'mode': expected 'bus' or 'local', found 'remote'"
    )


def test_a_secret_does_not_travel() -> None:
    assert refusal(a_task(key=SecretRef("api")), molecule_ref="x", key="hush") == (
        "param 'key': a secret can't be passed to a molecule: it would travel with the inner job"
    )


def test_the_depth_is_limited() -> None:
    plan(a_task(depth=7), 1, {"molecule_ref": "x"}, 8)
    assert refusal(a_task(depth=8), molecule_ref="x") == "molecules within molecules, more than 8 levels deep"


def test_a_circle_is_spelled_out_from_where_it_begins() -> None:
    assert lineage_of(a_task(lineage=("top", "a")), "b") == ["top", "a", "b"]
    with pytest.raises(OperativeError, match=r"^cyclic molecules: a → b → a$"):
        lineage_of(a_task(lineage=("top", "a", "b")), "a")


def test_the_inner_job_belongs_to_the_same_organisation() -> None:
    definition = inner_definition(DOCUMENT, "molecule", {"name": "Ada"}, "org_acme")
    assert (definition.name, definition.org) == ("greet", "org_acme")
    assert definition.tasks[0].params == {"command": "echo Ada"}


def test_a_variable_that_is_not_declared_is_refused() -> None:
    with pytest.raises(OperativeError, match="param 'nam': the molecule declares no such variable"):
        inner_definition(DOCUMENT, "molecule", {"nam": "Ada"}, "org_acme")


def test_a_document_full_of_mistakes_is_told_in_part_and_counted() -> None:
    steps = "\n".join(f"  - {{name: s{n}, operative: shell, depend_on: []}}" for n in range(SHOWN + 5))
    with pytest.raises(OperativeError) as refused:
        inner_definition(f"molecule: m\nsteps:\n{steps}\n", "molecule", {}, "org_acme")
    lines = str(refused.value).splitlines()
    assert refused.value.kind is FailureKind.REJECTED
    assert len(lines) == SHOWN + 1
    assert lines[0].startswith("molecule:3:")
    assert lines[-1] == "… and 5 more"
