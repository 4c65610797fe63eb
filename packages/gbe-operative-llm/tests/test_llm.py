"""Chat completions, against a stub of the service on loopback."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gbe_jobs_domain.edges import Inline
from gbe_jobs_domain.outcomes import Completed, Failed, FailureKind
from gbe_jobs_domain.payloads import RetryPolicy
from gbe_nexus import Transport, connect
from gbe_operative.composite import CompositeOperative
from gbe_operative.plugin_settings import ConfigurationError, SecretStr
from gbe_operative.testing import Hall as RealHall
from gbe_operative_http.testing import Received, Reply, Web, json_reply
from gbe_operative_llm import LlmOperative
from gbe_operative_llm.core.answer import structured
from gbe_operative_llm.core.request import ParamError, request_of
from gbe_operative_llm.settings import LlmSettings
from gbe_operative_shell import ShellOperative

Hall = Any  # what it returns is a union, which each test knows better

KEY = "sk-hunter2-and-more"
PATH = "/v1/chat/completions"
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def completion(text: str | None, finish_reason: str = "stop", **message: Any) -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish_reason}
    return json_reply({"id": "x", "model": "stub-2", "choices": [choice], "usage": USAGE, "more": 1})


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    bus = await connect("memory://")
    yield bus
    await bus.close()


@pytest.fixture
async def hall(transport: Transport) -> AsyncIterator[Hall]:
    async with RealHall.on(transport) as hall:
        yield hall


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    async with Web() as web:
        yield web


def operative(web: Web, **settings: Any) -> LlmOperative:
    settings = {"api_key": SecretStr(KEY), **settings}
    return LlmOperative(settings=LlmSettings(base_url=f"{web.url}/v1/", **settings))


async def ask(hall: Hall, web: Web, params: dict[str, str], settings: dict[str, Any] | None = None, **task: Any) -> Any:
    await hall.worker(operative(web, **(settings or {}))).start()
    await hall.queue(hall.task("ask", "llm", params=params, **task))
    (ended,) = await hall.ends()
    return ended


async def test_a_prompt(hall: Hall, web: Web) -> None:
    web.routes[PATH] = completion("Hello,\nyou.")
    ended = await ask(hall, web, {"model": "stub", "prompt": "hi", "temperature": "0.5", "max_tokens": "9"})
    assert type(ended.outcome) is Completed
    assert ended.outcome.output == ["Hello,", "you."]
    assert isinstance(ended.outcome.data, Inline)
    assert ended.outcome.data.decoded() == {
        "text": "Hello,\nyou.",
        "model": "stub-2",
        "usage": USAGE,
        "finish_reason": "stop",
    }
    (received,) = web.received
    assert json.loads(received.body) == {
        "model": "stub",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0.5,
        "max_tokens": 9,
    }
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert received.headers["idempotency-key"] == f"{ended.task_id}-1"


async def test_a_conversation(hall: Hall, web: Web) -> None:
    web.routes[PATH] = completion("ok")
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    await ask(hall, web, {"messages": json.dumps(talk), "system": "Be brief."}, {"model": "default"})
    sent = json.loads(web.received[0].body)
    assert sent == {"model": "default", "messages": [{"role": "system", "content": "Be brief."}, *talk]}


async def test_json_answers(hall: Hall, web: Web) -> None:
    web.routes[PATH] = completion('```json\n{"city": "Basel", "n": 1.10}\n```')
    ended = await ask(hall, web, {"model": "m", "prompt": "p", "response_format": "json"})
    assert ended.outcome.data.decoded()["json"] == {"city": "Basel", "n": 1.1}
    assert b"1.10" in bytes(ended.outcome.data.value), "numbers keep their digits"
    assert json.loads(web.received[0].body)["response_format"] == {"type": "json_object"}


async def test_an_answer_that_should_be_json_is_asked_for_again(hall: Hall, web: Web) -> None:
    answers = [completion("Well,"), completion('{"a": [1', "length"), completion('{"a": 1}')]
    web.routes[PATH] = lambda received: answers.pop(0)
    params = {"model": "m", "prompt": "p", "response_format": "json"}
    ended = await ask(hall, web, params, max_retries=2, retry=RetryPolicy(delay=0))
    assert ended.outcome.data.decoded()["json"] == {"a": 1}
    said = [message.message for message in hall.progress]
    assert any("not JSON: Well," in text for text in said)
    assert any("cut off by max_tokens" in text for text in said)
    keys = [received.headers["idempotency-key"] for received in web.received]
    assert len(set(keys)) == 3, "another attempt wants another answer"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a":1}', b'{"a":1}'),
        (" [1]\n", b"[1]"),
        ("```\n{}\n```", b"{}"),
        ("5", None),
        ("{", None),
        ("so: {}", None),
        ("", None),
        ("[" * 5000, None),
    ],
)
def test_what_is_json(text: str, value: bytes | None) -> None:
    found = structured(text)
    assert (None if found is None else bytes(found)) == value


async def test_busy_services_are_asked_again_when_they_say(hall: Hall, web: Web) -> None:
    answers = [
        Reply(429, {"Retry-After": "0", "Content-Type": "application/json"}, b'{"error": {"message": "slow down"}}'),
        Reply(503),
        completion("at last"),
    ]
    web.routes[PATH] = lambda received: answers.pop(0)
    ended = await ask(hall, web, {"model": "m", "prompt": "p"}, max_retries=3, retry=RetryPolicy(delay=0))
    assert (ended.outcome.output, ended.attempt) == (["at last"], 3)
    assert any("429 Too Many Requests: slow down" in message.message for message in hall.progress)


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (
            json_reply({"error": {"message": f"Incorrect key: {KEY}"}}, 401),
            "401 Unauthorized (is GBE_LLM_API_KEY right?)",
        ),
        (
            json_reply({"error": {"message": "no such model", "code": "model_not_found"}}, 404),
            "404 Not Found: no such model",
        ),
        (json_reply({"error": {"message": "pay", "code": "insufficient_quota"}}, 429), "429 Too Many Requests: pay"),
        (json_reply({"error": "plain"}, 400), "400 Bad Request: plain"),
        (Reply(307, {"Location": "http://elsewhere.example/"}), "307 Temporary Redirect"),
        (completion(None, refusal="I won't"), "the model refused: I won't"),
    ],
)
async def test_what_time_does_not_heal(hall: Hall, web: Web, reply: Reply, says: str) -> None:
    web.routes[PATH] = reply
    ended = await ask(hall, web, {"model": "m", "prompt": "p"}, max_retries=5)
    assert isinstance(ended.outcome, Failed)
    assert says in ended.outcome.error
    assert (ended.attempt, len(web.received)) == (1, 1)
    assert KEY not in str(ended.outcome)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{}", b'{"choices": []}', b'{"choices": [{"message": 5}]}', b"[" * 10_000, b"\xff"]
)
async def test_answers_that_make_no_sense(hall: Hall, web: Web, body: bytes) -> None:
    web.routes[PATH] = Reply(200, {"Content-Type": "application/json"}, body)
    ended = await ask(hall, web, {"model": "m", "prompt": "p"})
    assert "the service's answer" in ended.outcome.error


@pytest.mark.parametrize("about", [{}, {"model": None, "usage": None}, {"model": 5, "usage": "little"}])
async def test_what_a_service_says_about_its_answer_is_no_reason_to_lose_it(
    hall: Hall, web: Web, about: dict[str, Any]
) -> None:
    web.routes[PATH] = json_reply({"choices": [{"message": {"content": "dear words"}}], **about})
    ended = await ask(hall, web, {"model": "m", "prompt": "p"})
    said = {"text": "dear words", "model": "", "usage": None, "finish_reason": None}
    assert ended.outcome.data.decoded() == said


async def test_an_endless_answer(hall: Hall, web: Web) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 1_000_000

    web.routes[PATH] = lambda received: Reply(200, {}, endless())
    ended = await ask(hall, web, {"model": "m", "prompt": "p"})
    assert "larger than 16777216 bytes" in ended.outcome.error


async def test_a_service_that_is_silent_or_away(hall: Hall, web: Web) -> None:
    async def never(received: Received) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    web.routes[PATH] = never
    ended = await ask(hall, web, {"model": "m", "prompt": "p"}, {"read_timeout": 0.05})
    assert ended.outcome.error == "nothing was heard of the service for 0.05 s"
    assert ended.outcome.kind is FailureKind.TIMEOUT
    async with Web() as gone:
        pass_on = LlmOperative(["llm2"], settings=LlmSettings(base_url=gone.url))
    await hall.worker(pass_on).start()
    await hall.queue(hall.task("ask", "llm2", params={"model": "m", "prompt": "p"}))
    await hall.ends(2)
    assert hall.ended[1].outcome.error.startswith("the service can't be reached: ")


async def test_a_cancel_closes_the_connection(hall: Hall, web: Web) -> None:
    async def never(received: Received) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    web.routes[PATH] = never
    await hall.worker(operative(web)).start()
    task = hall.task("ask", "llm", params={"model": "m", "prompt": "p"})
    await hall.queue(task)
    await asyncio.wait_for(web.arrived.wait(), 5)
    await hall.cancel(task)
    (ended,) = await hall.ends()
    assert ended.outcome.kind is FailureKind.CANCELLED
    await asyncio.wait_for(web.left.wait(), 5)


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({}, "missing param: prompt (or messages)"),
        ({"prompt": " "}, "missing param: prompt"),
        ({"prompt": "x", "messages": "[]"}, "both prompt and messages"),
        ({"messages": "[]"}, "messages: expected a JSON array"),
        ({"messages": "{"}, "messages: not JSON"),
        ({"messages": "[" * 5000}, "messages: not JSON"),
        ({"messages": '[{"role": "boss", "content": "x"}]'}, "messages[0]: expected an object with a role, one of"),
        ({"messages": '[{"role": "user"}]'}, "messages[0]: no content"),
        ({"messages": '["hello"]'}, "messages[0]: "),
        ({"prompt": "x", "model": "\n"}, "missing param: model"),
        ({"prompt": "x", "model": "a\x00b"}, "is no name of a model"),
        ({"prompt": "x", "model": "m" * 201}, "is no name of a model"),
        ({"prompt": "x", "temperature": "hot"}, "temperature: 'hot'"),
        ({"prompt": "x", "temperature": "nan"}, "temperature: 'nan'"),
        ({"prompt": "x", "max_tokens": "0"}, "max_tokens: '0'"),
        ({"prompt": "x", "max_tokens": "²"}, "max_tokens: "),
        ({"prompt": "x", "response_format": "xml"}, "response_format: 'xml' is neither text nor json"),
        ({"prompt": "\udcff"}, "not Unicode"),
        (
            {"prompt": "x", "base_url": "http://evil/"},
            "base_url can't be a param: which service is asked is the host's",
        ),
        ({"prompt": "x", "api_key": "k"}, "GBE_LLM_API_KEY"),
        ({"prompt": "x", "proxy": "http://evil"}, "GBE_LLM_PROXY"),
        ({"promt": "x"}, "unknown param: 'promt' (did you mean prompt?)"),
    ],
)
def test_params_that_make_no_request(params: dict[str, str], says: str) -> None:
    model = {} if "model" in params else {"model": "m"}
    with pytest.raises(ParamError) as caught:
        request_of({**model, **params}, None)
    assert says in str(caught.value)


async def test_a_job_cannot_choose_the_service(hall: Hall, web: Web) -> None:
    async with Web() as evil:
        ended = await ask(hall, web, {"model": "m", "prompt": "p", "base_url": evil.url}, max_retries=3)
        assert ended.outcome.kind is FailureKind.REJECTED
        assert not web.received
        assert not evil.received


async def test_the_key_is_told_nowhere(
    hall: Hall, web: Web, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not on the bus, in no log, in no child's environment, also where the service repeats it."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("GBE_LLM_API_KEY", KEY)
    monkeypatch.setenv("GBE_LLM_BASE_URL", f"{web.url}/v1")
    replies = [json_reply({"error": {"message": f"bad {KEY}"}}, 500), completion(f"your key is {KEY}")]
    replies = [replace(reply, headers={**dict(reply.headers), "X-Your-Key": KEY}) for reply in replies]
    web.routes[PATH] = lambda received: replies.pop(0)
    spy: list[bytes] = []
    await hall.transport.listen(["gbe.>"], lambda subject, body: spy.append(body))
    await hall.worker(CompositeOperative([LlmOperative(), ShellOperative()])).start()
    await hall.queue(
        hall.task("a", "llm", params={"model": "m", "prompt": "p"}, max_retries=1, retry=RetryPolicy(delay=0)),
        hall.task("b", "shell", params={"command": "env; true"}),
    )
    ended = {end.task_name: end.outcome for end in await hall.ends(2)}
    assert ended["a"].output == ["your key is ***"]
    assert not [line for line in ended["b"].output if "LLM" in line]
    assert len(web.received) == 2
    assert not [body for body in spy if KEY.encode() in body]
    assert KEY not in caplog.text
    assert KEY not in repr(LlmSettings(api_key=SecretStr(KEY)))


async def test_a_key_in_a_file(hall: Hall, web: Web, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("first-key\n")
    file.chmod(0o600)
    web.routes[PATH] = completion("ok")
    await hall.worker(operative(web, api_key=None, api_key_file=file)).start()
    task = {"params": {"model": "m", "prompt": "p"}}
    await hall.queue(hall.task("a", "llm", **task))
    await hall.ends()
    file.write_text("second-key")
    await hall.queue(hall.task("b", "llm", **task))
    await hall.ends(2)
    assert [received.headers["authorization"] for received in web.received] == ["Bearer first-key", "Bearer second-key"]
    file.chmod(0o644)
    await hall.queue(hall.task("c", "llm", **task))
    await hall.ends(3)
    assert "GBE_LLM_API_KEY_FILE: " in hall.ended[2].outcome.error
    assert "chmod go=" in hall.ended[2].outcome.error


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"base_url": "localhost:8000"}, "GBE_LLM_BASE_URL"),
        ({"base_url": "ftp://h/"}, "GBE_LLM_BASE_URL"),
        ({"base_url": "http://me:pw@h/"}, "GBE_LLM_BASE_URL"),
        ({"api_key": SecretStr("a\nb")}, "GBE_LLM_API_KEY: "),
        ({"api_key_file": Path("/nowhere/key")}, "GBE_LLM_API_KEY_FILE: "),
        ({"tls_ca": Path("/nowhere/ca")}, "GBE_LLM_TLS_CA: "),
        ({"proxy": SecretStr("nonsense")}, "GBE_LLM_PROXY: "),
    ],
)
async def test_settings_that_make_no_sense(hall: Hall, settings: dict[str, Any], says: str) -> None:
    made = LlmOperative(settings=LlmSettings(**{"base_url": "http://127.0.0.1:1/", **settings}))
    with pytest.raises(ConfigurationError, match=says):
        await made.start(None)  # type: ignore[arg-type]


def test_both_ways_to_give_a_key() -> None:
    with pytest.raises(ConfigurationError, match="both GBE_LLM_API_KEY and"):
        LlmOperative(environment={"GBE_LLM_API_KEY": "k", "GBE_LLM_API_KEY_FILE": "/k"})


async def test_a_host_without_a_service(hall: Hall) -> None:
    """It starts all the same: `gbe up` serves whatever is installed."""
    await hall.worker(LlmOperative(environment={})).start()
    await hall.queue(hall.task("a", "llm", params={"model": "m", "prompt": "p"}, max_retries=3))
    (ended,) = await hall.ends()
    assert "GBE_LLM_BASE_URL" in ended.outcome.error
    assert ended.attempt == 1


def test_nothing_is_imported_until_it_starts() -> None:
    code = "import sys; import gbe_operative_llm as m; m.LlmOperative(environment={}); print('httpx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
