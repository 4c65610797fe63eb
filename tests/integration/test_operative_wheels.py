"""Each operative's wheel installs alone and serves its type.

Each distributable with a plug-in gets an environment in which nothing is but its wheel and what that declares. There
all its modules are imported, then, with a transport, `gbe-operative` serves one task on a real server. A new one is
found by its entry point, and has to say below what a task of it is.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gbe_jobs_domain.definitions import TaskDefinition
from gbe_jobs_domain.outcomes import Completed
from gbe_nexus_nats.server import EmbeddedServer
from tests.integration.environments import Environments, plugins, run
from tests.integration.site import QUICK, Site, outcome
from tests.workspace import Member, members

pytestmark = [pytest.mark.server, pytest.mark.wheels]

AT_ONCE = 2
"""Environments made at a time: most of an installation is waiting for the disk."""

FIND = "import importlib.util, sys; print(*[m for m in sys.argv[1:] if importlib.util.find_spec(m)])"


@dataclass
class Served:
    """A tiny task of a type, and whether it did what it is for. `host`: variables of the process that serves it."""

    params: dict[str, str]
    did: Callable[[Completed], object]
    host: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """Name to text, in the folder where the process is started."""


def value(done: Completed) -> Any:
    assert done.data is not None, done
    assert hasattr(done.data, "decoded"), done
    return done.data.decoded()


def tasks(web: str) -> dict[str, Served]:
    """By plug-in; each is served under the task type of that name. `web`: a service that answers."""
    inner = {"molecule": "m", "steps": [{"name": "a", "operative": "mock"}]}
    return {
        "shell": Served({"command": "echo served"}, lambda done: done.output == ["served"]),
        "http": Served(
            {"url": f"{web}/item"},
            lambda done: value(done)["body"] == {"served": True},
            host={"GBE_HTTP_ALLOW": "loopback"},
        ),
        "llm": Served(
            {"model": "m", "prompt": "Are you there?"},
            lambda done: value(done)["text"] == "I am.",
            host={"GBE_LLM_BASE_URL": f"{web}/v1", "GBE_LLM_API_KEY": "sk-1234"},
        ),
        "script": Served(
            {"script_path": "greet.sh", "interpreter": "sh", "args": "you"},
            lambda done: done.output == ["hello, you"],
            files={"greet.sh": 'echo "hello, $1"\n'},
        ),
        "assert": Served(
            {"command": 'echo \'{"a": 1, "b": 2}\'', "expect_stdout_json": '{"a": 1}'},
            lambda done: value(done) == {"a": 1, "b": 2},
        ),
        "template": Served(
            {"template": "{% for x in xs|from_json %}<{{ x }}>{% endfor %}", "xs": "[1, 2]"},
            lambda done: value(done)["text"] == "<1><2>",
        ),
        "python": Served(
            {"module": "double", "n": "21"},
            lambda done: value(done) == {"twice": 42},
            host={"GBE_PYTHON_PACKAGE": "served_tasks"},
            files={
                "served_tasks/__init__.py": "",
                "served_tasks/double.py": (
                    "import sys\n"
                    "from gbe_operative_python import write_result\n"
                    "write_result({'twice': 2 * int(sys.argv[sys.argv.index('--n') + 1])})\n"
                ),
            },
        ),
        "molecule": Served({"molecule": json.dumps(inner), "mode": "local"}, lambda done: value(done) == {"a": None}),
        "aether-session": Served(
            {"scenario": "ring-5", "overrides": '{"ticks": 16, "metrics": {"enabled": true}}'},
            lambda done: value(done)["metrics"]["total_ticks"] == 16,
        ),
    }


@contextmanager
def service() -> Iterator[str]:
    """A service for those that need one."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say({"served": True})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            message = {"role": "assistant", "content": "I am."}
            self._say({"model": "m", "choices": [{"message": message, "finish_reason": "stop"}]})

        def _say(self, answer: object) -> None:
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_there_is_a_task_for_each() -> None:
    missing = plugins().keys() - tasks("").keys()
    assert not missing, f"say in `tasks` what a task of {sorted(missing)} is"


async def test_each_operative_serves_its_type_from_its_wheel_alone(
    environments: Environments, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    served = plugins()
    ours = [member.module for member in members() if member.module.startswith("gbe_operative_")]
    places = asyncio.Semaphore(AT_ONCE)
    with service() as web:
        wanted = tasks(web)
        async with Site(EmbeddedServer(), tmp_path) as site:
            await site.start(site.oracle(**QUICK))

            async def serve(plugin: str, member: Member) -> None:
                async with places:
                    bin_folder = await asyncio.to_thread(environments.make_alone, member)
                    await asyncio.to_thread(environments.add, bin_folder, "gbe-nexus-nats")
                    found = await asyncio.to_thread(run, bin_folder / "python", "-I", "-c", FIND, *ours, cwd=tmp_path)
                    # What commands share is a part of several; another plug-in is not.
                    assert set(found.split()) - {"gbe_operative_command"} == {member.module}
                    task = wanted[plugin]
                    folder = tmp_path / plugin
                    for name, text in task.files.items():
                        (folder / name).parent.mkdir(parents=True, exist_ok=True)
                        (folder / name).write_text(text)
                    folder.mkdir(exist_ok=True)
                    role = site.role(plugin, [bin_folder / "gbe-operative", "--handles", f"{plugin}:1"], task.host)
                    role.folder = folder
                    await role.start()
                job_id = await site.submit(TaskDefinition("t", plugin, params=dict(task.params)))
                await site.end(job_id)
                done = outcome((await site.tasks(job_id))["t"])
                assert isinstance(done, Completed), f"{done}\n{role.log.read_text()}"
                assert task.did(done), done
                assert await role.stop() == 0, role.log.read_text()

            results = await asyncio.gather(
                *(serve(plugin, member) for plugin, member in served.items()), return_exceptions=True
            )
    assert len(served) >= 9
    for plugin, result in zip(served, results, strict=True):
        with subtests.test(plugin):
            if result is not None:
                raise result
