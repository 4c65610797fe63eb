"""Modules as tasks: P10, and what jobs can not make of it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gbe_jobs_domain.edges import Ref
from gbe_jobs_domain.outcomes import Completed, Failed, FailureKind
from gbe_jobs_domain.payloads import SecretRef
from gbe_operative.plugin_settings import ConfigurationError
from gbe_operative.secrets import Secrets
from gbe_operative_command.testing import runs
from gbe_operative_python import PythonOperative, write_result
from gbe_operative_python.module_names import InvalidModule, check_package, module_of

APPS = Path(__file__).with_name("apps")

Hall = Any  # of conftest.py, which can't be imported


def data(outcome: Any) -> Any:
    assert isinstance(outcome, Completed), outcome
    assert outcome.data is not None
    return outcome.data.decoded()  # type: ignore[union-attr]


class Modules:
    """A worker for the modules of the package `acme_tasks`."""

    def __init__(self, hall: Hall) -> None:
        self.hall = hall

    async def run(self, task_type: str = "python", **params: Any) -> Any:
        return await self.run_with(task_type, params=params)

    async def run_with(self, task_type: str, **fields: Any) -> Any:
        task = self.hall.task("t", task_type, **fields)
        await self.hall.queue(task)
        return (await self.hall.ends(len(self.hall.ended) + 1))[-1].outcome


@pytest.fixture
async def modules(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> Modules:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the worker's own")
    operative = PythonOperative(["python", "resize-image", "9-lives"], package="acme_tasks", path=[APPS])
    await hall.worker(operative, secrets=Secrets({"GBE_SECRET_TOKEN": "tok-123456"})).start()
    return Modules(hall)


async def test_a_task_type_is_a_module(modules: Modules) -> None:
    outcome = await modules.run("resize-image", path="a.png", width="5")
    found = data(outcome)
    assert (found["path"], found["width"], found["force"]) == ("a.png", 5, False)
    assert outcome.output == ["resizing a.png"]
    assert {"GBE_TASK_ID", "GBE_JOB_ID", "GBE_ATTEMPT", "GBE_WORK_DIR", "GBE_RESULT_FD"} <= set(found["names"])
    assert not {"AWS_SECRET_ACCESS_KEY", "path", "width"} & set(found["names"])
    assert found["path0"] != found["cwd"], "nothing is imported from where it runs"


async def test_a_param_names_the_module(modules: Modules) -> None:
    assert data(await modules.run(module="resize_image", path="a.png"))["width"] == 800


async def test_a_value_is_never_an_option(modules: Modules) -> None:
    found = data(await modules.run("resize-image", path="--force"))
    assert (found["path"], found["force"]) == ("--force", False)
    assert data(await modules.run("resize-image", path="x", width="-5"))["width"] == -5
    assert data(await modules.run("resize-image", path="$(id); `id` 'x'"))["path"] == "$(id); `id` 'x'"


@pytest.mark.parametrize(
    ("module", "type_", "says"),
    [
        ("nope", "python", "no module acme_tasks.nope is there to run, neither installed for"),
        ("nope.inner", "python", "no module acme_tasks.nope.inner is there to run"),
        (None, "python", "no module acme_tasks.python is there to run"),
        (None, "python", "GBE_PYTHON_PATH); the task type gave its name, for there is no param 'module'"),
        ("..os", "python", "param 'module': '..os' is not a module of the package acme_tasks"),
        ("os; import sys", "python", "is not a module"),
        ("/etc/passwd", "python", "is not a module"),
        ("-c", "python", "is not a module"),
        ("class", "python", "is not a module"),
        ("", "python", "is not a module"),
        ("a\0b", "python", "is not a module"),
        ("x" * 5_000, "python", "is not a module"),
        (None, "9-lives", "task type '9-lives' makes no module's name; say which with the param `module`"),
    ],
)
async def test_modules_that_are_not_there_or_not_to_be_run(
    modules: Modules, module: str | None, type_: str, says: str
) -> None:
    outcome = await modules.run_with(type_, params={} if module is None else {"module": module}, max_retries=2)
    assert isinstance(outcome, Failed)
    assert outcome.kind is FailureKind.REJECTED, "and not tried again"
    assert says in outcome.error


@given(st.text(max_size=40), st.none() | st.text(max_size=40))
def test_no_name_leads_out_of_the_package(task_type: str, module: str | None) -> None:
    try:
        found = module_of("acme.tasks", task_type, module)
    except InvalidModule:
        return
    assert found.startswith("acme.tasks.")
    assert all(part.isidentifier() and part.isascii() for part in found.split("."))


@pytest.mark.parametrize("name", ["", ".", "a.", "a b", "a-b", "../a", "a;b", "import", "a\n"])
def test_what_is_no_package(name: str) -> None:
    with pytest.raises(InvalidModule):
        check_package(name)


async def test_what_is_wrong_inside_is_the_modules_own_error(modules: Modules) -> None:
    usage = await modules.run("resize-image", path="a", width="wide")
    assert (usage.exit_code, usage.kind) == (2, FailureKind.ERROR)
    assert "argument --width: invalid int value: 'wide'" in usage.error
    unknown = await modules.run("resize-image", path="a", widht="5")
    assert "unrecognized arguments: --widht 5" in unknown.error


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"a b": "x"}, "param 'a b': can't be an option"),
        ({"--help": "x"}, "param '--help': can't be an option"),
        ({"": "x"}, "param '': can't be an option"),
        ({"big": "x" * 100_000}, "param 'big': 100000 bytes are too large for an argument (limit 98304); use big_ref"),
        ({"nul": "a\0b"}, "param 'nul': contains a NUL byte"),
    ],
)
async def test_params_that_are_no_arguments(modules: Modules, params: dict[str, str], says: str) -> None:
    outcome = await modules.run(module="report", **params)
    assert (outcome.kind, says in outcome.error) == (FailureKind.REJECTED, True), outcome


async def test_results(modules: Modules) -> None:
    assert data(await modules.run(module="report")) is None
    assert data(await modules.run(module="report", result=" [1, 2.50]\n")) == [1, 2.5]
    wrong = await modules.run_with("python", params={"module": "report", "result": "{"}, max_retries=2)
    assert wrong.error.startswith("the result is no JSON: Input data was truncated: b'{'")
    large = await modules.run(module="report", items="200000")
    assert isinstance(large.data, Ref)
    assert (large.data.items, large.data.media_type) == (200_000, "application/json")
    failed = await modules.run(module="report", result="1", code="7")
    assert (failed.exit_code, failed.data) == (7, None)


async def test_much_output_goes_by_reference(modules: Modules) -> None:
    """P15, in short: 20 MB; what the adapter does with 500 MB is tested there."""
    outcome = await modules.run(module="flood", lines="20000")
    assert data(outcome) == 20_000
    assert "bytes omitted, all are in store://" in outcome.output[0]
    assert sum(map(len, outcome.output)) < 70_000
    assert outcome.result_ref is not None


async def test_artifacts_are_files(modules: Modules) -> None:
    text = "word " * 100_000
    outcome = await modules.run_with(
        "python",
        params={"module": "report"},
        input_from={"text_ref": "up"},
        inputs={"up": (await modules.run(module="report", result=f'"{text[:90_000]}"')).data},
    )
    assert data(outcome) == text[:90_000]


async def test_standard_input(modules: Modules) -> None:
    outcome = await modules.run(module="report", stdin="given", use="stdin")
    assert data(outcome) == "given"
    assert outcome.output[1] == "arguments: ['--use', 'stdin']", "stdin is no argument"


async def test_a_secret_is_on_no_command_line(modules: Modules) -> None:
    outcome = await modules.run_with("python", params={"module": "report", "TOKEN": SecretRef("token"), "a": "b"})
    assert outcome.output == ["secret in the environment: ***", "arguments: ['--a', 'b']"]


async def test_a_cancel_ends_the_group(modules: Modules, tmp_path: Path) -> None:
    hall = modules.hall
    task = hall.task("t", "python", params={"module": "wait", "pids": str(tmp_path / "pids")})
    await hall.queue(task)
    await hall.until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text())
    await hall.cancel(task)
    (end,) = await hall.ends()
    assert end.outcome.kind is FailureKind.CANCELLED
    assert end.outcome.output == ["up"]
    assert not [pid for pid in (tmp_path / "pids").read_text().split() if runs(int(pid))]


@pytest.mark.parametrize(
    ("variable", "value"),
    [("GBE_PYTHON_PACKAGE", "a-b"), ("GBE_PYTHON_PACKAGE", "../x"), ("GBE_PYTHON_PATH", "/nowhere/at/all")],
)
def test_wrong_settings_are_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=variable):
        PythonOperative()


async def test_another_interpreter(hall: Hall, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\necho wrapped "$1" "$2" "$3"\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o700)
    monkeypatch.setenv("GBE_PYTHON_INTERPRETER", str(wrapper))
    monkeypatch.setenv("GBE_PYTHON_PACKAGE", "acme_tasks")
    monkeypatch.setenv("GBE_PYTHON_PATH", f"{APPS}:{tmp_path}")
    await hall.worker(PythonOperative()).start()
    outcome = await Modules(hall).run(module="report")
    assert outcome.output[0] == "wrapped -P -u -m"


def test_a_result_is_printed_where_no_operative_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GBE_RESULT_FD", raising=False)
    write_result({"a": 1})
    assert capsys.readouterr().out == '{"a":1}\n'
    with pytest.raises(TypeError):
        write_result(asyncio)
