"""`--app module:attribute`: what is found there, and what is said where nothing is."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from gbe_operative import apps
from gbe_operative.apps import load_app
from gbe_operative.command import OperativeSettings, main, make_worker
from gbe_operative.contract import Operative
from gbe_operative.core.handles import DEFAULT_OF_TYPE, parse_handles
from gbe_operative.mock import MockOperative
from gbe_operative.plugins import PluginError, load_served

APP = """
from gbe_operative.mock import MockOperative

class Own(MockOperative):
    @property
    def slots(self):
        return {"a": 7}

class Family:
    operative = Own(["a", "b"])

class Broken(MockOperative):
    def __init__(self):
        raise RuntimeError("boom")

text = "just a text"
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Writes a module into the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)
        sys.modules.pop(name, None)

    return write


@pytest.fixture
def app(write: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apps, "entry_points", lambda group: [])
    write("own_app", APP)


def test_an_operative_or_a_class_of_one(app: None) -> None:
    assert load_app("own_app:Family.operative").handles == ("a", "b")
    assert load_app("own_app:Own").handles == ("mock",)


def make_of_text(found: object, location: str) -> Operative | None:
    return (
        MockOperative([str(found).split(maxsplit=1)[0], location.replace(":", "-")]) if isinstance(found, str) else None
    )


def test_an_installed_package_makes_one_of_it(app: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["gbe_operative.apps"], "make_of_text", make_of_text, raising=False)
    point = EntryPoint("text", "gbe_operative.apps:make_of_text", apps.GROUP)
    monkeypatch.setattr(apps, "entry_points", lambda group: [point])
    assert load_app("own_app:text").handles == ("just", "own_app-text")
    with pytest.raises(PluginError, match="it has nothing that can be served"):
        load_app("own_app")


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("own_app", "--app own_app: it has nothing that can be served: an Operative, or functions with @task"),
        ("own_app:text", "--app own_app:text: it is str, nothing that can be served"),
        ("own_app:Familie", "own_app has no 'Familie': did you mean 'Family'?"),
        ("own_app:Family.x", "has no 'x'"),
        ("own_app:Broken", "--app own_app:Broken: RuntimeError: boom"),
        ("no_such_app", "there is no module 'no_such_app', neither in /"),
        ("own_app.inner", "there is no module 'own_app.inner'"),
        ("own_app.py", "is not `module` or `module:attribute` (a module, not a file: images.py is `images`)"),
        ("own_app:", "is not `module`"),
        ("a b", "is not `module`"),
        ("../x", "is not `module`"),
        ("failing", "--app failing: ZeroDivisionError: division by zero ("),
        ("failing", "failing.py:1)"),
        ("needing", "--app needing: ModuleNotFoundError: No module named 'no_such_library'"),
        ("mistyped", "--app mistyped: SyntaxError: "),
        ("leaving", "--app leaving: it ends the process when it is imported ("),
        ("leaving", "leaving.py:2)"),
        ("using", "--app using: JSONDecodeError: Expecting value: line 1 column 1 (char 0) ("),
        ("using", "using.py:3)"),
    ],
)
def test_what_is_wrong_is_named(app: None, write: Callable[[str, str], None], location: str, says: str) -> None:
    write("failing", "1 / 0")
    write("needing", "import no_such_library")
    write("mistyped", "def f(:")
    write("leaving", "import sys\nsys.exit(3)")
    write("using", "import json\n\njson.loads('')")
    with pytest.raises(PluginError) as caught:
        load_app(location)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_app_that_waits_for_ever_can_be_interrupted(
    write: Callable[[str, str], None], tmp_path: Path, number: signal.Signals
) -> None:
    write("waiting", "import threading\nopen('imports', 'w').close()\nthreading.Event().wait(60)")
    process = subprocess.Popen(
        [sys.executable, "-m", "gbe_operative", "--app", "waiting", "--nats", "memory://"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
    )
    while not (tmp_path / "imports").exists():
        assert process.poll() is None
    process.send_signal(number)
    assert process.communicate(timeout=20)[1] == b""
    assert process.returncode == 0


def test_it_is_one_line_and_exit_code_2(app: None, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--app", "no_such_app", "--nats", "memory://"]) == 2
    error = capfd.readouterr().err
    assert "no module 'no_such_app'" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "slots"),
    [
        ([], {"a": 7, "b": 5}),
        (["--handles", "a"], {"a": 7}),
        (["--handles", "b:2"], {"b": 2}),
        (["--handles", "a:1,mock:3"], {"a": 1, "mock": 3}),
        (["--handles", "a=mock"], {"a": 5}),
    ],
)
async def test_types_and_slots_are_the_apps_unless_handles_says_otherwise(
    app: None, arguments: list[str], slots: dict[str, int]
) -> None:
    settings = OperativeSettings.parse(
        ["--nats", "memory://", "--slots", "5", "--app", "own_app:Family.operative", *arguments], {}
    )
    worker = await make_worker(settings)
    assert worker.capabilities() == {"task_types": slots}
    await worker.stop()


def test_handles_may_name_a_plugin_for_a_type_of_the_app(app: None) -> None:
    own = load_app("own_app:Family.operative")
    assert load_served(own, parse_handles("a,b", DEFAULT_OF_TYPE)) is own
    assert isinstance(load_served(own, parse_handles("a=mock", DEFAULT_OF_TYPE)), MockOperative)
    with pytest.raises(
        PluginError, match=r"the app has no task type 'x', and no .* is installed here; the app has: a, b"
    ):
        load_served(own, parse_handles("a,x", DEFAULT_OF_TYPE))
    both = load_served(own, parse_handles("a,b=mock", DEFAULT_OF_TYPE))
    assert (both.handles, both.slots) == (("a", "b"), {"a": 7})
