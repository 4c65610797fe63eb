"""Acceptance scenarios D1 to D6: the graph."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gbe_jobs_domain.canonical import encode_definition
from gbe_jobs_domain.dag import CyclicDependency, check, check_outline, is_valid, roots, topological_order
from gbe_jobs_domain.definitions import JobDefinition, JobOutline, TaskDefinition


def graph(**needs: str) -> list[TaskDefinition]:
    """`graph(a="", b="a", c="a b")`."""
    return [TaskDefinition(name, "shell", depends_on=deps.split()) for name, deps in needs.items()]


def names(tasks: list[TaskDefinition], indices: list[int]) -> str:
    return " ".join(tasks[i].name for i in indices)


def test_d1_a_chain_has_one_order_and_one_root() -> None:
    tasks = graph(a="", b="a", c="b")
    assert check(tasks) == []
    assert names(tasks, topological_order(tasks)) == "a b c"
    assert names(tasks, roots(tasks)) == "a"


@pytest.mark.parametrize(
    ("tasks", "order"),
    [
        (graph(c="b", b="a", a=""), "a b c"),
        (graph(z="", y="", x=""), "z y x"),
        (graph(join="right left", right="root", left="root", root=""), "root right left join"),
        (graph(last="b", a="", b="", c=""), "a b last c"),
    ],
)
def test_d1_ready_tasks_come_in_the_order_of_the_definition(tasks: list[TaskDefinition], order: str) -> None:
    assert names(tasks, topological_order(tasks)) == order


def test_d2_two_roots_and_a_join() -> None:
    tasks = graph(a="", b="", c="a b")
    assert check(tasks) == []
    assert names(tasks, roots(tasks)) == "a b"


@pytest.mark.parametrize(
    ("tasks", "cycles"),
    [
        (graph(a="b", b="a"), ["a → b → a"]),
        (graph(a="a"), ["a → a"]),
        (graph(x="", c="a", a="b", b="c x"), ["c → a → b → c"]),
        (graph(a="b", b="a", after="a", c="d", d="c"), ["a → b → a", "c → d → c"]),
    ],
)
def test_d3_a_cycle_is_spelled_out(tasks: list[TaskDefinition], cycles: list[str]) -> None:
    assert [problem.message for problem in check(tasks)] == [f"cyclic dependency: {cycle}" for cycle in cycles]
    with pytest.raises(CyclicDependency, match=cycles[0]):
        topological_order(tasks)


def test_d4_an_unknown_dependency_names_the_nearest() -> None:
    (problem,) = check(graph(fetch="", load="fetsh"))
    assert str(problem) == (
        "tasks[1].depends_on[0]: task 'load' depends on 'fetsh', which does not exist, did you mean 'fetch'?"
    )


def test_d4_a_dependency_named_twice_is_a_duplicate_and_no_cycle() -> None:
    (problem,) = check(graph(a="", b="a a"))
    assert str(problem) == "tasks[1].depends_on[1]: duplicate dependency 'a'"


def test_d5_two_tasks_of_one_name() -> None:
    (problem,) = check([TaskDefinition("a", "x"), TaskDefinition("a", "x")])
    assert str(problem) == "tasks[1].name: duplicate task name 'a'; tasks[0] has it already"


def test_d5_no_tasks() -> None:
    assert [str(problem) for problem in check([])] == ["tasks: a job needs at least one task"]


def test_d6_input_from_a_task_outside_depends_on() -> None:
    tasks = [*graph(a="", b="a"), TaskDefinition("c", "x", depends_on=["b"], input_from={"X": "a.out", "Y": "b"})]
    (problem,) = check(tasks)
    assert str(problem) == "tasks[2].input_from.X: 'a' is not in depends_on; add 'a' to it"


def test_long_chains_and_wide_joins_do_not_recurse() -> None:
    chain = [TaskDefinition(f"t{i}", "x", depends_on=[f"t{i + 1}"] if i < 50_000 else []) for i in range(50_001)]
    assert topological_order(chain) == list(range(50_000, -1, -1))
    ring = [*chain[:-1], TaskDefinition("t50000", "x", depends_on=["t0"])]
    (problem,) = check(ring)
    assert problem.message.startswith("cyclic dependency: t0 → t1 → ")
    assert len(problem.message) < 200
    join = [*graph(**{f"t{i}": "" for i in range(50_000)}), TaskDefinition("j", "x", [f"t{i}" for i in range(50_000)])]
    assert is_valid(join)


arbitrary_graphs = st.integers(1, 7).flatmap(
    lambda size: st.lists(
        st.lists(st.integers(0, size), max_size=4),
        min_size=size,
        max_size=size,  # `size` itself is nobody's name
    )
)


def tasks_of(edges: list[list[int]]) -> list[TaskDefinition]:
    return [TaskDefinition(f"t{i}", "x", depends_on=[f"t{j}" for j in needs]) for i, needs in enumerate(edges)]


def naive_order(edges: list[list[int]]) -> list[int] | None:
    """Always the first that is ready; None where there is none."""
    order: list[int] = []
    while len(order) < len(edges):
        ready = [i for i, needs in enumerate(edges) if i not in order and set(needs) <= set(order)]
        if not ready:
            return None
        order.append(ready[0])
    return order


@given(arbitrary_graphs)
def test_it_agrees_with_the_naive_model(edges: list[list[int]]) -> None:
    tasks = tasks_of(edges)
    expected = naive_order(edges)
    repeats = any(len(set(needs)) < len(needs) for needs in edges)
    problems = check(tasks)
    assert is_valid(tasks) == (problems == []) == (expected is not None and not repeats)
    unknown = any(len(edges) in needs for needs in edges)
    if not unknown and not repeats:
        assert bool(problems) == any("cyclic" in problem.message for problem in problems)
    if expected is not None:
        assert topological_order(tasks) == expected


def outline(definition: JobDefinition) -> JobOutline:
    return msgspec.json.decode(encode_definition(definition), type=JobOutline)


@given(arbitrary_graphs)
def test_the_outline_check_agrees(edges: list[list[int]]) -> None:
    tasks = tasks_of(edges)
    error = check_outline(outline(JobDefinition("job", "job", tasks)))
    problems = check(tasks)
    assert error == (str(problems[0]) if problems else None)


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ('{"name":"j","job_type":"j","tasks":[{"name":"a","task_type":"x"}]}', None),
        ('{"name":"j","job_type":"j","tasks":[{"name":"a","task_type":"x"}],"v":2}', "v: 2 is not a version"),
        ('{"name":" ","job_type":"j","tasks":[{"name":"a","task_type":"x"}]}', "name: a job name can't be blank"),
        ('{"name":"j","job_type":"j","tasks":[]}', "tasks: a job needs at least one task"),
        ('{"name":"j","job_type":"j","tasks":[{"name":"a","task_type":"x","params":{"n":5}}]}', "tasks[0].params: "),
        ('{"name":"j","job_type":"j","tasks":[{"name":"a","task_type":"x","params":null}]}', "tasks[0].params: "),
        ('{"name":"j","job_type":"j","tasks":[{"name":"a","task_type":"x","retry":{"delays":1}}]}', "tasks[0].retry: "),
        ('{"name":"j","job_type":"j","tasks":[{"name":"a","task_type":"x","on_lost":"no"}]}', "tasks[0].on_lost: "),
        ('{"name":"j","job_type":"j","tasks":[{"name":"a","task_type":"x","timeout_secs":0}]}', "tasks[0].timeout_s"),
        ('{"name":"j","job_type":"j","tasks":[{"name":"a","task_type":"x","max_retries":-1}]}', "tasks[0].max_ret"),
    ],
)
def test_the_outline_check_opens_what_stays_bytes(document: str, error: str | None) -> None:
    found = check_outline(msgspec.json.decode(document, type=JobOutline))
    assert found == error if error is None else found is not None and found.startswith(error)
