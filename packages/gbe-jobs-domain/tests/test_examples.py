"""`docs/examples`: what they are there to show."""

from pathlib import Path

import pytest

from gbe_jobs_domain.dag import roots
from gbe_jobs_domain.documents import DefinitionErrors, load_file

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.name)
def test_they_load(file: Path) -> None:
    if file.name == "broken.yaml":
        with pytest.raises(DefinitionErrors) as caught:
            load_file(file)
        assert len(caught.value.errors) > 10
    else:
        assert load_file(file).tasks


def test_the_diamond_is_one() -> None:
    diamond = load_file(EXAMPLES / "diamond.yaml")
    assert [(task.name, task.depends_on) for task in diamond.tasks] == [
        ("a", []),
        ("b", ["a"]),
        ("c", ["a"]),
        ("d", ["b", "c"]),
    ]


def test_the_demo_shows_what_there_is_to_see() -> None:
    demo = load_file(EXAMPLES / "demo.yaml", {"unit": "Celsius"})
    assert len(demo.tasks) >= 6
    assert len(roots(demo.tasks)) == 1
    assert sum(task.depends_on == ["stations"] for task in demo.tasks) == 3, "a fan-out"
    assert any(len(task.depends_on) == 3 and task.input_from for task in demo.tasks), "a join with data"
    assert any(task.max_retries and "GBE_ATTEMPT" in str(task.params["command"]) for task in demo.tasks), "a retry"
    assert demo.tasks[-1].params["UNIT"] == "Celsius"
