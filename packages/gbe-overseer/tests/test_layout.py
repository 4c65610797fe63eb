"""The tree that is drawn of a DAG."""

from gbe_jobs_domain.states import TaskState
from gbe_overseer.layout import fitting, rows
from gbe_overseer.view import JobView, TaskView


def tasks(**edges: list[str]) -> list[TaskView]:
    return [TaskView(index, name, "shell", needs) for index, (name, needs) in enumerate(edges.items())]


def drawn(*args: TaskView) -> list[str]:
    return [
        f"{row.guide}{row.task.name}{' ← ' + ', '.join(row.also_needs) if row.also_needs else ''}" for row in rows(args)
    ]


def test_a_join_stands_below_the_last_task_it_needs() -> None:
    assert drawn(*tasks(a=[], b=["a"], c=["a"], d=["b", "c"])) == ["a", "├─ b", "└─ c", "   └─ d ← b"]


def test_two_roots() -> None:
    assert drawn(*tasks(a=[], b=[], c=["a"])) == ["a", "└─ c", "b"]


def test_a_long_chain_stays_on_the_screen_and_every_task_is_drawn_once() -> None:
    chain = [TaskView(i, f"t{i}", "shell", [f"t{i - 1}"] if i else []) for i in range(5_000)]
    found = rows(chain)
    assert [row.task.index for row in found] == list(range(5_000))
    assert max(len(row.guide) for row in found) < 60


def test_where_there_is_little_room_what_runs_is_shown_first() -> None:
    many = [TaskView(i, f"t{i}", "shell") for i in range(100)]
    many[70].state = TaskState.RUNNING
    many[90].state = TaskState.FAILED
    shown, left_out = fitting(rows(many), 3)
    assert [row.task.name for row in shown] == ["t0", "t70", "t90"]
    assert len(left_out) == 97


def test_what_a_molecule_consists_of_stands_below_it() -> None:
    outer = tasks(a=[], mol=["a"], after=["mol"])
    outer[1].child = JobView("job_c1", tasks=tasks(x=[], y=["x"]))
    outer[1].child.tasks[1].child = JobView("job_c2", tasks=tasks(deep=[]))
    assert drawn(*outer) == [
        "a",
        "└─ mol",
        "   │  ▸ x",
        "   │  ▸ └─ y",
        "   │  ▸       ▸ deep",
        "   └─ after",
    ]
