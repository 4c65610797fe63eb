"""Acceptance scenario P9, and P13 and P15 as they are for templates."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gbe_jobs_domain.edges import Inline
from gbe_jobs_domain.outcomes import Completed, FailureKind
from gbe_jobs_domain.payloads import SecretRef
from gbe_nexus import Transport
from gbe_operative.contract import OperativeError
from gbe_operative.secrets import Secrets
from gbe_operative.testing import Hall
from gbe_operative_command.testing import Stage, runs
from gbe_operative_template import TemplateOperative
from gbe_operative_template.fork_server import CONTROL_FD
from gbe_operative_template.operative import TemplateSettings

Templates = Any  # of conftest.py, which can't be imported


ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


def data(outcome: Any) -> Any:
    assert isinstance(outcome, Completed)
    assert isinstance(outcome.data, Inline)
    return outcome.data.decoded()


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def until(condition: Callable[[], object]) -> None:
    """Wait for what only the process table tells."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def alone(pid: int) -> None:
    """Wait until it has no children: an answer comes a moment before the end of the process that gave it."""
    await until(lambda: not children(pid))


def fork_server() -> int:
    """Its pid: the child of this process that has the control socket."""
    (found,) = (pid for pid in children(os.getpid()) if b"fork_server" in Path(f"/proc/{pid}/cmdline").read_bytes())
    assert os.readlink(f"/proc/{found}/fd/{CONTROL_FD}").startswith("socket:")
    return found


async def refused(templates: Templates, says: str, template: str | None = None, **params: str) -> OperativeError:
    with pytest.raises(OperativeError, match=says) as caught:
        await templates.run(template, **params)
    assert not caught.value.retryable
    return caught.value


async def test_the_missions_example(templates: Templates) -> None:
    outcome = await templates.run("https://api.example.com/{{org}}/usage")
    assert data(outcome) == {
        "text": "https://api.example.com/default/usage",
        "url": "https://api.example.com/default/usage",
    }
    assert outcome.output == ["https://api.example.com/default/usage"]


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://a/b?c=d#e\n", "https://a/b?c=d#e"),
        (" http://[::1]:80/ ", "http://[::1]:80/"),
        ("see https://a/b", None),
        ("https://a\nhttps://b", None),
        ("https:///x", None),
        ("mailto:a@b", None),
        ("", None),
    ],
)
async def test_whether_it_is_a_url(templates: Templates, text: str, url: str | None) -> None:
    assert data(await templates.run(text)).get("url") == url


async def test_variables(templates: Templates) -> None:
    job = json.dumps({"city": "Basel", "who": "job"})
    template = "{{ city }} {{ vars.city }} {{ who }} {{ vars.who }} {{ params['a-b'] }} {{ org_id }} {{ task_name }}"
    outcome = await templates.run(template, vars=job, who="param", **{"a-b": "c"})
    assert data(outcome)["text"] == "Basel Basel param job c org_default the-task"
    error = await refused(templates, "param 'vars': expected a JSON object of variables", "x", vars="[1]")
    assert error.kind is FailureKind.REJECTED


async def test_structured_inputs(templates: Templates) -> None:
    rows = json.dumps([{"name": "a<b", "n": 1}, {"name": "c", "n": 2}])
    template = (
        "{% for row in rows|from_json %}{{ row.name }}={{ row.n + 1 }}\n{% endfor %}{{ (rows|fromjson)[0]|tojson }}"
    )
    assert data(await templates.run(template, rows=rows))["text"] == 'a<b=2\nc=3\n{"name": "a<b", "n": 1}'
    assert data(await templates.run("rm {{ file|quote }}", file="a b"))["text"] == "rm 'a b'"
    await refused(templates, r"template, line 2: JSONDecodeError: Expecting", "\n{{ rows|fromjson }}", rows="{")
    await refused(templates, r"template, line 1: 'rows' is undefined", "{{ rows|fromjson }}")


async def test_an_undefined_variable(templates: Templates) -> None:
    error = await refused(
        templates, r"^template, line 3: 'citty' is undefined; did you mean 'city'\?$", "a\nb\n{{ citty }}", city="x"
    )
    assert error.kind is FailureKind.ERROR
    await refused(templates, r"line 1: 'dict object' has no attribute 'b'", "{{ vars.b }}", vars='{"a": 1}')
    assert data(await templates.run("{{ x|default('none') }}"))["text"] == "none"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("a\n{% if %}", r"^template, line 2: Expected an expression"),
        ("{{ a", r"^template, line 1: unexpected end of template"),
        ("{% nothing %}", r"^template, line 1: Encountered unknown tag 'nothing'"),
        ("{{ x|nothing }}", r"^template, line 1: No filter named 'nothing'"),
    ],
)
async def test_a_mistake_in_the_template(templates: Templates, template: str, says: str) -> None:
    error = await refused(templates, says, template, x="1")
    assert error.kind is FailureKind.REJECTED


REFUSED = [
    ("{{ ''.__class__ }}", r"template, line 1: refused: access to attribute '__class__' of 'str' object is unsafe"),
    ("{{ ''['__class__'] }}", "refused"),
    ("{{ ''|attr('__class__') }}", "refused"),
    ("{{ org.format.__globals__ }}", "refused"),
    ("{{ '{0.__class__}'.format(org) }}", "refused"),
    ("{{ cycler.__init__.__globals__ }}", "refused"),
    ("{% for i in range(10**9) %}{% endfor %}", "OverflowError: Range too big"),
    ("{{ 'a' * 10**9 }}", "takes more than 64 MiB of memory"),
    ("{{ 'a' * 10**7 }}", r"the text has more than 1,048,576 bytes \(the limit\)"),
    ("{% for i in range(99999) %}{{ 'aaaaaaaaaaaaaaaaaaaa' }}{% endfor %}", "the text has more than"),
    ("{{ [1] * 10**8 }}", "takes more than 64 MiB of memory"),
    ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "it calls itself too often"),
    ("{{ 1 / 0 }}", "template, line 1: ZeroDivisionError: division by zero"),
    ("{{ 1 + 'a' }}", "line 1: TypeError"),
    ("{{ '\\ud800' }}", "UnicodeEncodeError"),
    ("{{ (0)(1) }}", "TypeError"),
    ("(" + "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "template"),
    ("{{ [1].append.__self__ }}", "refused"),
]


async def test_what_is_refused_or_stopped(templates: Templates, subtests: pytest.Subtests) -> None:
    for template, says in REFUSED:
        with subtests.test(template[:60]):
            await refused(templates, says, template)
    assert data(await templates.run("after {{ org }}"))["text"] == "after default", "and nothing is left of it"


async def test_an_endless_loop_is_stopped(templates: Templates) -> None:
    await templates.run("warm")
    server = fork_server()
    await alone(server)
    templates.limit(1.0)
    looping = asyncio.create_task(templates.run(ENDLESS))
    await until(lambda: children(server))
    templates.limit(60.0)
    others = await asyncio.gather(*[templates.run("{{ n }}", n=str(n)) for n in range(20)])
    assert [data(outcome)["text"] for outcome in others] == [str(n) for n in range(20)]
    with pytest.raises(OperativeError, match="not rendered within 1 s: does it loop without end") as caught:
        await looping
    assert not caught.value.retryable
    await alone(server)


async def test_the_time_at_work_in_one_expression_is_stopped_too(templates: Templates) -> None:
    templates.limit(0.5)
    await refused(templates, "not rendered within 0.5 s", "{{ 9**(9**9) }}")


async def test_cancelled_mid_way(templates: Templates) -> None:
    await templates.run("warm")
    server = fork_server()
    await alone(server)
    running = asyncio.create_task(templates.run(ENDLESS))
    await until(lambda: children(server))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await alone(server)


async def test_killed_mid_way(templates: Templates) -> None:
    await templates.run("warm")
    server = fork_server()
    await alone(server)
    running = asyncio.create_task(templates.run(ENDLESS))
    await until(lambda: children(server))
    os.kill(children(server)[0], signal.SIGKILL)
    with pytest.raises(OperativeError, match=r"the template's process died \(killed by signal 9\)") as caught:
        await running
    assert caught.value.retryable


async def test_when_what_it_is_forked_from_is_killed(templates: Templates) -> None:
    await templates.run("warm")
    server = fork_server()
    await alone(server)
    running = asyncio.create_task(templates.run(ENDLESS))
    await until(lambda: children(server))
    (renderer,) = children(server)
    os.kill(server, signal.SIGKILL)
    with pytest.raises(OperativeError, match=r"not rendered: its process ended \(SIGKILL\)") as caught:
        await running
    assert caught.value.retryable
    assert not runs(renderer)
    assert data(await templates.run("again"))["text"] == "again"
    assert fork_server() != server


async def test_from_a_file(templates: Templates) -> None:
    templates.write(
        "mail/body.txt", "{% extends 'layout.txt' %}{% block body %}{% include 'mail/part.txt' %}{% endblock %}"
    )
    templates.write("mail/layout.txt", "<{% block body %}{% endblock %}>\n")
    templates.write("mail/part.txt", "hello {{ who }}")
    outcome = await templates.run(template_path="mail/body.txt", who="you")
    assert data(outcome)["text"] == "<hello you>\n", "beside it first, then from the root"
    assert outcome.output == ["<hello you>"]
    inner = templates.root / "mail" / "part.txt"
    await refused(templates, f"^{inner}, line 1: 'who' is undefined$", template_path="mail/body.txt")


async def test_files_that_are_none(templates: Templates, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    (templates.root / "link").symlink_to(tmp_path / "outside")
    templates.root.joinpath("binary").write_bytes(b"\xff")
    for path, says in [
        ("missing", "template_path 'missing': there is no such file in "),
        (".", "a directory"),
        ("../outside", "outside of"),
        ("link", "outside of"),
        ("binary", "not UTF-8: byte 0"),
    ]:
        error = await refused(templates, says, template_path=path)
        assert error.kind is FailureKind.REJECTED
    for name in ("../outside", str(tmp_path / "outside"), "link"):
        await refused(templates, "line 1: include: .*outside of", f"{{% include '{name}' %}}")
    await refused(templates, "include: 'missing': there is no such file", "{% include 'missing' %}")
    for params, says in [({}, "missing param: template, or template_path"), ({"template_path": "x"}, "both")]:
        template = "x" if params else None
        assert (await refused(templates, says, template, **params)).kind is FailureKind.REJECTED


async def test_the_output_file(templates: Templates, tmp_path: Path) -> None:
    (templates.root / "out.conf").write_text("old")
    outcome = await templates.run("port = {{ port }}\n", port="80", output_path="out.conf")
    content = b"port = 80\n"
    assert data(outcome) == {
        "text": "port = 80\n",
        "path": str(templates.root / "out.conf"),
        "size": 10,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    assert (templates.root / "out.conf").read_bytes() == content
    await refused(templates, "undefined", "{{ x }}", output_path="out.conf")
    with pytest.raises(OperativeError, match=r"output_path '\.\./away': it is outside of"):
        await templates.run("x", output_path="../away")
    (templates.root / "directory").mkdir()
    for path, says in {"../away": "outside", "directory": "a directory", "": "no path", "new/": "no name"}.items():
        with pytest.raises(OperativeError, match=says) as caught:
            await templates.run("x", output_path=path)
        assert caught.value.kind is FailureKind.REJECTED, "it can't get better"
    (templates.root / "file").touch()
    with pytest.raises(OperativeError, match="Not a directory") as caught:
        await templates.run("x", output_path="file/x")
    assert caught.value.retryable
    assert (templates.root / "out.conf").read_bytes() == content, "whole, whatever fails after it"
    assert not (tmp_path / "away").exists()
    assert sorted(os.listdir(templates.root)) == ["directory", "file", "out.conf"]


async def test_a_service_without_a_root(transport: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    stage = await Stage.on(transport, tmp_path)
    operative = TemplateOperative()
    await operative.start(stage.context)
    try:
        rendered = await operative.execute(stage.execution({"template": "{{ org }}"}))
        assert data(rendered)["text"] == "default"
        for params in (
            {"template_path": "etc/passwd"},
            {"template": "x", "output_path": f"{tmp_path}/x"},
            {"template": "{% include 'etc/passwd' %}"},
        ):
            with pytest.raises(OperativeError, match="this host names no directory for such files"):
                await operative.execute(stage.execution(params))
    finally:
        await operative.close()


async def test_secrets_stay_in_the_file(transport: Transport, tmp_path: Path) -> None:
    async with Hall.on(transport) as hall:
        secrets = Secrets({"GBE_SECRET_TOKEN": "open sesame"})
        operative = TemplateOperative(settings=TemplateSettings(root=tmp_path))
        await hall.worker(operative, secrets=secrets).start()
        params = {"template": "token = {{ token }}\n", "output_path": "app.conf", "token": SecretRef("token")}
        await hall.queue(hall.task("config", "template", params=params))
        (ended,) = await hall.ends()
    assert b"open sesame" not in msgspec.json.encode(ended)
    assert data(ended.outcome)["text"] == "token = ***\n"
    assert (tmp_path / "app.conf").read_text() == "token = open sesame\n"
    assert (tmp_path / "app.conf").stat().st_mode & 0o777 == 0o600


async def test_readers_see_the_old_file_or_the_new_one(templates: Templates) -> None:
    path = templates.root / "big"
    path.write_text("0" * 500_000)
    seen = set()
    for number in range(1, 6):
        writing = asyncio.create_task(templates.run("{{ n * 500000 }}", n=str(number), output_path="big"))
        while not writing.done():
            text = path.read_text()
            seen.add((len(text), len(set(text))))
            await asyncio.sleep(0)
        await writing
    assert seen == {(500_000, 1)}


async def test_much_at_once(templates: Templates) -> None:
    outcomes = await asyncio.gather(
        *[templates.run("{{ n }} {{ big|length }}", n=str(n), big="x" * 100_000) for n in range(50)]
    )
    assert [data(outcome)["text"] for outcome in outcomes] == [f"{n} 100000" for n in range(50)]
    text = data(await templates.run("{{ big }}", big="\u0001ä" * 200_000))["text"]
    assert text == "\u0001ä" * 200_000
    assert len(os.listdir("/proc/self/fd")) < 60, "no socket is left"
