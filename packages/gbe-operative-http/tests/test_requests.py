"""Acceptance scenario P6, for the http Operative alone, against a web server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gbe_jobs_domain.edges import Inline
from gbe_jobs_domain.outcomes import Completed, FailureKind
from gbe_nexus import IntegrityError, PayloadTooLarge, Unavailable
from gbe_operative.contract import OperativeError
from gbe_operative_http.outcome import INLINE_BYTES
from gbe_operative_http.testing import Received, Reply, Web, json_reply

Http = Any  # of conftest.py, which can't be imported


def data(outcome: Any) -> Any:
    edge = outcome.data
    assert isinstance(edge, Inline)
    return edge.decoded()


async def stored(http: Http, outcome: Any) -> bytes:
    key = data(outcome)["body_ref"].removeprefix("store://gbe-artifacts/")
    read: bytes = await http.stage.artifacts.read(key, limit=1 << 30)
    return read


async def failure(http: Http, url: str, **params: str) -> OperativeError:
    with pytest.raises(OperativeError) as caught:
        await http.get(url, **params)
    return caught.value


async def test_json(http: Http, web: Web) -> None:
    """P6: GET JSON → status, headers, body."""
    web.routes["/items"] = Reply(
        200, {"Content-Type": "application/json", "X-Served-By": "me"}, b'{"items":[{"name":"a","price":1.1}]}'
    )
    outcome = await http.get(f"{web.url}/items")
    assert isinstance(outcome, Completed)
    found = data(outcome)
    assert found == {
        "status": 200,
        "url": f"{web.url}/items",
        "headers": {"content-type": "application/json", "x-served-by": "me", "content-length": "36"},
        "body": {"items": [{"name": "a", "price": 1.1}]},
    }
    assert outcome.output == ['{"items":[{"name":"a","price":1.1}]}']
    (received,) = web.received
    assert received.method == "GET"
    assert "idempotency-key" not in received.headers
    assert received.headers["user-agent"] == "gbe-operative-http"


async def test_numbers_keep_their_digits(http: Http, web: Web) -> None:
    web.routes["/"] = Reply(
        200, {"Content-Type": "application/hal+json"}, b'\n{"n": 1.10, "big": 12345678901234567890123}\n'
    )
    outcome = await http.get(web.url)
    assert b'{"n": 1.10, "big": 12345678901234567890123}' in bytes(outcome.data.value)


async def test_a_post_with_its_body_and_headers(http: Http, web: Web) -> None:
    """P6: POST body and headers arrive."""
    web.routes["/orders"] = json_reply({"id": 7}, 201)
    outcome = await http.get(
        f"{web.url}/orders?a=1",
        method="post",
        headers='{"X-Number": 5, "X-Flag": true, "Accept": "application/json"}',
        header_X_Own="own",
        body="grüezi",
        query='{"q": "a b&c", "n": [1, 2], "empty": ""}',
    )
    assert data(outcome)["status"] == 201
    (received,) = web.received
    assert received.method == "POST"
    assert received.body == "grüezi".encode()
    assert received.headers["content-type"] == "text/plain; charset=utf-8"
    assert received.headers["content-length"] == "7"
    assert (received.headers["x-number"], received.headers["x-flag"]) == ("5", "true")
    assert (received.headers["accept"], received.headers["x_own"]) == ("application/json", "own")
    assert received.query == [("a", "1"), ("q", "a b&c"), ("n", "1"), ("n", "2"), ("empty", "")]
    assert received.headers["idempotency-key"] == http.stage.last.task.task_id


@pytest.mark.parametrize(
    ("params", "header"),
    [
        ({"idempotency_key": "mine"}, "mine"),
        ({"headers": '{"Idempotency-Key": "theirs"}'}, "theirs"),
        ({"idempotency_key": ""}, None),
        ({"method": "GET", "idempotency_key": "asked for"}, "asked for"),
    ],
)
async def test_the_idempotency_key_can_be_another(
    http: Http, web: Web, params: dict[str, str], header: str | None
) -> None:
    web.routes["/"] = Reply()
    await http.get(web.url, **{"method": "PUT", **params})
    assert web.received[0].headers.get("idempotency-key") == header


async def test_json_bodies_and_artifacts(http: Http, web: Web) -> None:
    web.routes["/"] = Reply()
    await http.get(web.url, method="PUT", json='{"a": 1.10}')
    assert (web.received[0].body, web.received[0].headers["content-type"]) == (b'{"a": 1.10}', "application/json")
    artifact = await http.stage.artifacts.put("job_x/in", b"\x00\xff" * 300_000, media_type="image/png")
    ref = http.stage.ref(artifact)
    await http.run({"url": web.url, "method": "POST", "body_ref": ref.uri}, {"body_ref": ref})
    sent = web.received[1]
    assert sent.body == b"\x00\xff" * 300_000
    assert (sent.headers["content-type"], sent.headers["content-length"]) == ("image/png", "600000")
    assert "transfer-encoding" not in sent.headers


async def test_text(http: Http, web: Web) -> None:
    web.routes["/"] = Reply(200, {"Content-Type": "text/plain"}, b"eins\nzwei\n")
    outcome = await http.get(web.url)
    assert data(outcome)["body"] == "eins\nzwei\n"
    assert outcome.output == ["eins", "zwei"]
    web.routes["/"] = Reply(200, {"Content-Type": "text/html; charset=ISO-8859-1"}, "grüezi".encode("latin-1"))
    assert data(await http.get(web.url))["body"] == "grüezi"
    web.routes["/"] = Reply(200, {"Content-Type": "application/json"}, b"{broken")
    assert data(await http.get(web.url))["body"] == "{broken"
    web.routes["/"] = Reply(204)
    outcome = await http.get(web.url)
    assert (data(outcome)["body"], outcome.output) == ("", [])


async def test_where_nothing_says_what_it_is_the_bytes_do(http: Http, web: Web) -> None:
    for body, expected in ((b'{"a": [1]}', {"a": [1]}), (b"plain", "plain"), (b"", "")):
        web.routes["/"] = Reply(body=body)
        assert data(await http.get(web.url))["body"] == expected
    for body in (b"\xff\xfe\x00", b"a\0b", b"\xff" * INLINE_BYTES * 2):
        web.routes["/"] = Reply(body=body)
        assert await stored(http, await http.get(web.url)) == body
    for body, name in ((b"[" + b" " * INLINE_BYTES + b"]", "body.json"), ("ü".encode() * INLINE_BYTES, "body.txt")):
        web.routes["/"] = Reply(body=body)
        assert (await http.get(web.url)).result_ref.endswith("/" + name)


async def test_binary_goes_by_reference(http: Http, web: Web) -> None:
    web.routes["/logo.png"] = Reply(200, {"Content-Type": "image/png"}, b"\x89PNG\r\n\x00")
    outcome = await http.get(f"{web.url}/logo.png")
    found = data(outcome)
    assert "body" not in found
    assert outcome.result_ref == found["body_ref"]
    assert outcome.output == [f"[7 bytes of image/png are in {found['body_ref']}]"]
    assert await stored(http, outcome) == b"\x89PNG\r\n\x00"


async def test_large_bodies_go_by_reference(http: Http, web: Web) -> None:
    lines = b"".join(b"line %d\n" % number for number in range(100_000))
    web.routes["/"] = Reply(200, {"Content-Type": "text/csv"}, lines)
    outcome = await http.get(web.url)
    assert await stored(http, outcome) == lines
    assert outcome.output[0].startswith("[… ")
    assert outcome.output[-1] == "line 99999"
    assert len(outcome.output) < 3000
    text = "ü" * INLINE_BYTES
    web.routes["/"] = Reply(200, {"Content-Type": "text/plain; charset=utf-16"}, text.encode("utf-16"))
    assert (await stored(http, await http.get(web.url))).decode() == text, "always UTF-8"
    value = json.dumps({"items": ["x" * 1000] * 200}).encode()
    web.routes["/"] = Reply(200, {"Content-Type": "application/vnd.api+json"}, value)
    outcome = await http.get(web.url)
    info = await http.stage.artifacts.info(f"{http.stage.job_id}/body.json")
    assert info.media_type == "application/json", "so that paths into it can be followed"


async def test_packed_bodies(http: Http, web: Web) -> None:
    text = b"hello " * 1000
    raw_deflate = zlib.compressobj(wbits=-15)
    packings = {
        "gzip": gzip.compress(text[:3000]) + gzip.compress(text[3000:]),
        "deflate": zlib.compress(text),
        "Deflate": raw_deflate.compress(text) + raw_deflate.flush(),
    }
    for coding, packed in packings.items():
        web.routes["/"] = Reply(200, {"Content-Type": "text/plain", "Content-Encoding": coding}, packed)
        assert data(await http.get(web.url))["body"] == text.decode(), coding
    assert web.received[0].headers["accept-encoding"] == "gzip, deflate"
    web.routes["/"] = Reply(200, {"Content-Type": "text/plain", "Content-Encoding": "br"}, b"\x01\x02")
    assert await stored(http, await http.get(web.url)) == b"\x01\x02", "as it came: the header says what it is"


@pytest.mark.parametrize(
    ("body", "says"),
    [(gzip.compress(b"hello" * 100)[:-9], "in the middle of its gzip"), (b"no gzip at all", "the body is no gzip")],
    ids=["cut off", "no gzip"],
)
async def test_broken_packings(http: Http, web: Web, body: bytes, says: str) -> None:
    web.routes["/"] = Reply(200, {"Content-Type": "text/plain", "Content-Encoding": "gzip"}, body)
    error = await failure(http, web.url)
    assert says in str(error)
    assert error.retryable


async def test_a_body_beyond_the_limit(start: Any, web: Web) -> None:
    """A gigabyte packed into a megabyte counts as a gigabyte, and is never held."""
    http = await start(max_body=300_000)
    bomb = gzip.compress(b"\0" * 50_000_000)
    assert len(bomb) < 60_000
    web.routes["/bomb"] = Reply(200, {"Content-Type": "text/plain", "Content-Encoding": "gzip"}, bomb)
    web.routes["/plain"] = Reply(200, {"Content-Type": "text/plain"}, b"x" * 300_001)
    web.routes["/fits"] = Reply(200, {"Content-Type": "text/plain"}, b"x" * 300_000)
    for path in ("/bomb", "/plain"):
        error = await failure(http, web.url + path)
        assert "the body is larger than 300000 bytes" in str(error)
        assert not error.retryable
    assert await stored(http, await http.get(web.url + "/fits"))
    assert "larger than 10 bytes" in str(await failure(http, web.url + "/fits", max_body="10"))
    assert await stored(http, await http.get(web.url + "/fits", max_body="999999999")), "the host's limit stays"
    assert await http.stage.artifacts.keys() == [f"{http.stage.job_id}/body.txt"]


async def test_a_404_fails_with_the_status_in_the_data(http: Http, web: Web) -> None:
    """P6."""
    error = await failure(http, f"{web.url}/nothing")
    assert str(error) == f"GET {web.url}/nothing: 404 Not Found: nothing here"
    assert (error.retryable, error.kind) == (False, FailureKind.ERROR)
    found = data(error)
    assert (found["status"], found["body"]) == (404, "nothing here\n")
    assert error.output == ["nothing here"]


async def test_json_errors_can_be_read(http: Http, web: Web) -> None:
    web.routes["/"] = json_reply({"error": "no such city"}, 422)
    error = await failure(http, web.url)
    assert data(error)["body"] == {"error": "no such city"}
    assert not error.retryable
    web.routes["/"] = Reply(500, {"Content-Type": "application/json"}, b'{"a": "' + b"x" * 200_000 + b'"}')
    error = await failure(http, web.url)
    assert data(error)["body_cut"]
    assert len(data(error)["body"]) == 65536
    assert len(str(error)) < 700


async def test_what_may_be_tried_again_and_when(http: Http, web: Web) -> None:
    for status, retryable in (
        (408, True),
        (425, True),
        (429, True),
        (500, True),
        (503, True),
        (501, False),
        (400, False),
    ):
        web.routes["/"] = Reply(status, {"Retry-After": "7"})
        error = await failure(http, web.url)
        assert (error.retryable, error.retry_after) == (retryable, 7.0), status


async def test_expected_statuses(http: Http, web: Web) -> None:
    web.routes["/"] = Reply(404, {"Content-Type": "text/plain"}, b"gone")
    assert data(await http.get(web.url, expect_status="200, 404"))["status"] == 404
    assert data(await http.get(web.url, expect_status="4xx"))["status"] == 404
    web.routes["/"] = Reply(200)
    error = await failure(http, web.url, expect_status="201-299")
    assert str(error) == f"GET {web.url}: 200 OK"
    assert not error.retryable


async def test_head_has_no_body(http: Http, web: Web) -> None:
    web.routes["/"] = Reply(200, {"Content-Type": "application/json", "Content-Encoding": "gzip"}, gzip.compress(b"{}"))
    assert data(await http.get(web.url, method="HEAD"))["body"] == ""


async def test_repeated_headers(http: Http, web: Web) -> None:
    web.routes["/"] = Reply(200, [("X-A", "1"), ("Set-Cookie", "a=1"), ("X-A", "2"), ("Set-Cookie", "b=2, c")])
    headers = data(await http.get(web.url))["headers"]
    assert (headers["x-a"], headers["set-cookie"]) == ("1, 2", ["a=1", "b=2, c"])
    await http.get(web.url)
    assert "cookie" not in web.received[1].headers, "what one task is given another does not send"


async def test_connections_are_used_again(http: Http, web: Web) -> None:
    web.routes["/"] = Reply(body=b"ok")
    for _ in range(3):
        await http.get(web.url)
    assert web.connections == 1


async def test_silence_is_a_timeout(http: Http, web: Web) -> None:
    async def never(received: Received) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    web.routes["/"] = never
    error = await failure(http, web.url, read_timeout="0.05")
    assert str(error) == f"GET {web.url}: nothing was heard for 0.05 s"
    assert (error.kind, error.retryable) == (FailureKind.TIMEOUT, True)


async def test_a_cancelled_request_closes_its_connection(http: Http, web: Web) -> None:
    async def never(received: Received) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    web.routes["/"] = never
    asking = asyncio.create_task(http.get(web.url))
    await asyncio.wait_for(web.arrived.wait(), 5)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.wait_for(web.left.wait(), 5)


async def test_a_body_that_breaks_off(http: Http, web: Web) -> None:
    web.routes["/short"] = Reply(200, {"Content-Length": "100", "Connection": "close"}, b"only this")

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * 300_000
        raise ConnectionError

    web.routes["/chunked"] = lambda received: Reply(200, {"Content-Type": "text/plain"}, endless())

    async def hang_up(received: Received) -> Reply:
        raise ConnectionError

    web.routes["/nothing"] = hang_up
    for path in ("/short", "/chunked", "/nothing"):
        error = await failure(http, web.url + path)
        assert str(error).startswith(f"GET {web.url}{path}: ")
        assert error.retryable
    assert not await http.stage.artifacts.keys(), "no half of a body is kept"


async def test_nobody_listens(http: Http, web: Web) -> None:
    async with Web() as other:
        url = other.url
    error = await failure(http, url)
    assert str(error) == f"GET {url}: no connection to 127.0.0.1: Connection refused"
    assert error.retryable


async def test_a_body_in_crumbs(http: Http, web: Web) -> None:
    async def crumbs(count: int) -> AsyncIterator[bytes]:
        for number in range(count):
            yield b"%010d" % number

    for count in (2000, INLINE_BYTES // 10 + 5000):
        web.routes["/"] = Reply(200, {"Content-Type": "text/plain"}, crumbs(count))
        outcome = await http.get(web.url)
        text = data(outcome).get("body") or (await stored(http, outcome)).decode()
        assert text == "".join(f"{number:010}" for number in range(count))
    assert "".join(outcome.output).endswith(text[-16_384:]), "the end of what is in the store"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"hello\r\n\r\n",
        b"HTTP/1.1 999999 X\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffffffff\r\nx",
        b"HTTP/1.1 200 OK\r\nX: y\x00z\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
        b"\x16\x03\x01\x02\x00",
    ],
)
async def test_services_that_talk_nonsense(http: Http, answer: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        error = await failure(http, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert error.retryable
    assert len(str(error)) < 500


async def test_the_store_is_away_for_a_moment(http: Http, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read only is read again; what had an effect is the task's to repeat, with its key."""
    large = b"x" * (INLINE_BYTES + 1)
    web.routes["/"] = Reply(200, {"Content-Type": "text/plain"}, large)
    spill = http.stage.spill
    problems: list[Exception] = [Unavailable("restarting")]

    async def failing(*args: Any) -> Any:
        if problems:
            raise problems.pop()
        return await spill(*args)

    monkeypatch.setattr(http.stage, "spill", failing)
    assert await stored(http, await http.get(web.url)) == large
    assert len(web.received) == 2
    problems += [Unavailable("restarting")]
    with pytest.raises(Unavailable):
        await http.get(web.url, method="POST")
    problems += [PayloadTooLarge(5, 4)]
    with pytest.raises(PayloadTooLarge):
        await http.get(web.url)
    assert len(web.received) == 4


async def test_a_damaged_artifact_is_not_sent(http: Http, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    web.routes["/"] = Reply()
    ref = http.stage.ref(await http.stage.artifacts.put("job_x/in", b"x" * 300_000))

    async def damaged(key: str) -> AsyncIterator[bytes]:
        yield b"x" * 200_000
        raise IntegrityError("job_x/in: its digest differs")

    monkeypatch.setattr(http.stage.artifacts, "get", damaged)
    with pytest.raises(OperativeError, match="body_ref: job_x/in: its digest differs") as caught:
        await http.run({"url": web.url, "method": "PUT", "body_ref": ref.uri}, {"body_ref": ref})
    assert not caught.value.retryable
    assert not web.received, "the service sees an upload that breaks off"
