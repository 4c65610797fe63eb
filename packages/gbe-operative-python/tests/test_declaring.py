"""What `@task` and `App` make of functions, and what they refuse."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from gbe_operative_python import App, DeclarationError, FunctionOperative, current, task
from gbe_operative_python.declaring import app_of, tasks_of
from gbe_operative_python.functions import operative_of

if TYPE_CHECKING:
    from decimal import Decimal


def types(what: Any) -> list[str]:
    return [one.task_type for one in tasks_of(what)]


def module(**names: Any) -> ModuleType:
    made = ModuleType("made")
    vars(made).update(names)
    return made


@task("resize-image", slots=3)
def resize(path: str, width: int = 800) -> str:
    return f"{path}@{width}"


@task
def _Make_Thumbnail() -> None: ...


def test_a_function_stays_a_function() -> None:
    assert resize("a", width=5) == "a@5"
    (found,) = tasks_of(resize)
    assert (found.task_type, found.slots, found.function) == ("resize-image", 3, resize)


def test_without_a_name_it_is_the_functions() -> None:
    assert types(_Make_Thumbnail) == ["make-thumbnail"]


def test_a_module_has_what_its_names_refer_to() -> None:
    assert types(module(a=resize, b=_Make_Thumbnail, again=resize, other=len, text="x")) == [
        "resize-image",
        "make-thumbnail",
    ]


def test_an_app_has_what_was_added() -> None:
    app = App(slots=2)

    @app.task
    def one() -> None: ...

    @app.task("second", slots=9)
    def two() -> None: ...

    app.add(resize, module(t=_Make_Thumbnail)).add(app)
    assert types(app) == ["one", "second", "resize-image", "make-thumbnail"]
    operative = FunctionOperative(app, "here:app")
    assert operative.slots == {"one": 2, "second": 9, "resize-image": 3, "make-thumbnail": 2}


def test_which_app_is_meant() -> None:
    app = App()
    assert app_of(app) is app
    assert app_of(module(x=app, y=app)) is app
    assert types(app_of(module(t=resize))) == ["resize-image"]
    with pytest.raises(DeclarationError, match="made has several apps; say which: made:x or made:y"):
        app_of(module(x=App(), y=App()))


def test_what_is_served_and_what_is_not_ours() -> None:
    assert operative_of("a text", "x") is None
    assert operative_of(module(a=1), "x") is None
    found = operative_of(resize, "x:resize")
    assert found is not None
    assert found.handles == ("resize-image",)
    with pytest.raises(DeclarationError, match="x:app has no tasks"):
        operative_of(App(), "x:app")


def test_a_decorator_around_it_is_called_too() -> None:
    @functools.wraps(resize)
    def louder(*args: Any, **kwargs: Any) -> str:
        return resize(*args, **kwargs).upper()

    (found,) = tasks_of(module(resize=louder))
    assert found.task_type == "resize-image"
    arguments = found.signature.arguments({"path": "a", "width": "5"})
    assert found.function(**arguments) == "A@5"


def test_the_result_may_be_annotated_with_what_is_imported_for_types_only() -> None:
    @task
    def price(net: str) -> Decimal:
        raise NotImplementedError

    assert tasks_of(price)[0].signature.arguments({"net": "1"}) == {"net": "1"}


def generator() -> Any:
    yield 1


async def async_generator() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("declare", "says"),
    [
        (lambda: task("Resize")(resize), "resize: 'Resize' is no task type"),
        (lambda: task("-a")(resize), "no task type"),
        (lambda: task("x" * 49)(resize), "no task type"),
        (lambda: task("a.b")(resize), "no task type"),
        (lambda: task(slots=0)(resize), "slots are a number from 1 on, not 0"),
        (lambda: task(generator), "generator: a task returns its result; it can't yield"),
        (lambda: task(async_generator), "it can't yield"),
        (lambda: task(functools.partial(resize)), "a task is a function, not partial"),
        (lambda: task(App), "a task is a function, not type"),
        (lambda: App(recycle_after=0), "recycle_after is a number from 1 on, not 0"),
        (lambda: App(slots=0), "slots is a number from 1 on"),
        (lambda: App(grace=-1), "grace is a number of seconds"),
        (lambda: App(environment="PATH"), "environment is a list of names, not the text 'PATH'"),
        (lambda: App().add("x"), "'x' is neither a function with @task, nor an App, nor a module with such"),
    ],
)
def test_what_is_no_task(declare: Callable[[], Any], says: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        declare()
    assert says in str(caught.value)


def test_two_functions_for_one_type() -> None:
    @task("resize-image")
    def other() -> None: ...

    with pytest.raises(DeclarationError, match=r"two functions for task type 'resize-image': .*resize and .*other"):
        tasks_of(module(a=resize, b=other))
    with pytest.raises(DeclarationError, match="two functions"):
        App().add(resize, other)


def test_two_functions_of_one_name() -> None:
    """Python forgets the first; its task type would wait for ever."""
    text = "from gbe_operative_python import App, task\n" + "".join(
        f"@task({name!r})\ndef work(): ...\n" for name in ("first", "second")
    )
    module = ModuleType("doubled")
    exec(text, vars(module))
    with pytest.raises(DeclarationError, match=r"named doubled.work, at lines 2 and 4: nobody can find the first one"):
        tasks_of(module)
    kept = ModuleType("kept")
    exec(text.replace("@task('second')", "first = work\n@task('second')"), vars(kept))
    assert sorted(one.task_type for one in tasks_of(kept)) == ["first", "second"]
    apart = ModuleType("apart")
    exec(
        text.replace("@task('first')", "app = App()\n@app.task('first')").replace("@task('se", "@app.task('se"),
        vars(apart),
    )
    assert [one.task_type for one in app_of(apart).tasks] == ["first", "second"]


def test_there_is_no_attempt_outside_of_one() -> None:
    with pytest.raises(RuntimeError, match=r"current\(\) is for functions run as tasks"):
        current()
