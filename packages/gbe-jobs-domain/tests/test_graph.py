"""Drawings, to the letter."""

import json

from gbe_jobs_domain.definitions import JobDefinition, TaskDefinition
from gbe_jobs_domain.graph import render_mermaid, render_tree

DIAMOND = JobDefinition(
    "nightly",
    "nightly-etl",
    [
        TaskDefinition("fetch", "http"),
        TaskDefinition("left", "shell", depends_on=["fetch"], input_from={"X": "fetch.body"}),
        TaskDefinition("right", "shell", depends_on=["fetch"]),
        TaskDefinition("join", "shell", depends_on=["left", "right"]),
        TaskDefinition("alone", "shell"),
    ],
)


def test_a_tree_shows_a_join_once_and_then_refers_to_it() -> None:
    assert render_tree(DIAMOND) == (
        "nightly (nightly-etl), 5 tasks\n"
        "├─ fetch [http]\n"
        "│  ├─ left [shell]\n"
        "│  │  └─ join [shell] ← left, right\n"
        "│  └─ right [shell]\n"
        "│     └─ join ↑\n"
        "└─ alone [shell]\n"
    )


def test_mermaid_shows_where_data_goes() -> None:
    assert render_mermaid(DIAMOND) == (
        "---\n"
        'title: "nightly"\n'
        "---\n"
        "flowchart TD\n"
        '    t0["fetch<br/><small>http</small>"]\n'
        '    t1["left<br/><small>shell</small>"]\n'
        '    t2["right<br/><small>shell</small>"]\n'
        '    t3["join<br/><small>shell</small>"]\n'
        '    t4["alone<br/><small>shell</small>"]\n'
        "    t0 ==> t1\n"
        "    t0 --> t2\n"
        "    t1 --> t3\n"
        "    t2 --> t3\n"
    )


def chain(length: int) -> JobDefinition:
    tasks = [TaskDefinition(f"t{i}", "x", depends_on=[f"t{i - 1}"] if i else []) for i in range(length)]
    return JobDefinition("chain", "chain", tasks)


def test_a_long_chain_goes_on_at_the_margin() -> None:
    lines = render_tree(chain(60)).splitlines()
    assert lines[0] == "chain (chain), 60 tasks"
    assert lines[25:28] == [" " * 72 + "└─ t24 ↓", "continued:", "└─ t24 [x]"]
    assert lines[-1].strip() == "└─ t59 [x]"


def test_the_size_of_a_tree_is_linear() -> None:
    assert len(render_tree(chain(20_000))) < 20_000 * 100


def test_every_task_is_drawn_exactly_once_in_full() -> None:
    layers = [TaskDefinition(f"t{i}", "x", depends_on=[f"t{j}" for j in range(max(0, i - 3), i)]) for i in range(60)]
    text = render_tree(JobDefinition("dense", "dense", layers))
    for task in layers:
        assert text.count(f"─ {task.name} [x]") == 1


def test_names_are_harmless_in_both() -> None:
    name = 'x"]\x1b[2J\u202e%%{init}%%<b>'
    definition = JobDefinition(name, "j", [TaskDefinition(name, "x")])
    tree, mermaid = render_tree(definition), render_mermaid(definition)
    for text in (tree, mermaid):
        assert all(c.isprintable() or c == "\n" for c in text)
    assert "%%" not in mermaid
    assert "<b>" not in mermaid
    title, node = mermaid.splitlines()[1], mermaid.splitlines()[4]
    assert json.loads(title.removeprefix("title: ")) == name
    assert node.count('"') == 2
