"""Redirects: what is followed, what is kept, and whom credentials are shown to."""

from __future__ import annotations

from typing import Any

import pytest

from gbe_operative.contract import OperativeError
from gbe_operative_http.core.redirects import headers_after, method_after, same_origin
from gbe_operative_http.testing import Reply, Web, json_reply

Http = Any  # of conftest.py, which can't be imported


def to(target: str, status: int = 302) -> Reply:
    return Reply(status, {"Location": target})


async def test_followed_to_their_end(http: Http, web: Web) -> None:
    web.routes |= {"/a": to("/b", 301), "/b": to("c?x=1", 307), "/c": json_reply({"ok": True})}
    outcome = await http.get(f"{web.url}/a")
    assert outcome.data.decoded()["url"] == f"{web.url}/c?x=1"
    assert [received.path for received in web.received] == ["/a", "/b", "/c"]


async def test_not_followed(http: Http, web: Web) -> None:
    web.routes["/a"] = to("/b")
    outcome = await http.get(f"{web.url}/a", follow_redirects="false")
    found = outcome.data.decoded()
    assert (found["status"], found["headers"]["location"], found["url"]) == (302, "/b", f"{web.url}/a")


async def test_round_and_round(http: Http, web: Web) -> None:
    web.routes["/a"] = to("/a")
    with pytest.raises(OperativeError, match="more than 3 redirects, the next to '/a'") as caught:
        await http.get(f"{web.url}/a", max_redirects="3")
    assert not caught.value.retryable
    assert len(web.received) == 4


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "http://[", "javascript:alert(1)", "http://x y/", "http://h:0/"]
)
async def test_to_what_is_no_url(http: Http, web: Web, target: str) -> None:
    web.routes["/a"] = to(target)
    with pytest.raises(OperativeError, match=f"GET {web.url}/a: redirect: ") as caught:
        await http.get(f"{web.url}/a")
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "POST", "GET"),
        (303, "PUT", "GET"),
        (303, "HEAD", "HEAD"),
        (302, "PUT", "PUT"),
        (307, "POST", "POST"),
        (308, "POST", "POST"),
    ],
)
async def test_methods(http: Http, web: Web, status: int, method: str, then: str) -> None:
    web.routes |= {"/a": to("/b", status), "/b": Reply()}
    await http.get(f"{web.url}/a", method=method, json='{"a":1}')
    second = web.received[1]
    assert (second.method, method_after(status, method)) == (then, then)
    if then == method:
        assert (second.body, second.headers["content-type"]) == (b'{"a":1}', "application/json")
    else:
        assert second.body == b""
        assert not [name for name in second.headers if name.startswith("content-")]


async def test_an_artifact_is_sent_again(http: Http, web: Web) -> None:
    web.routes |= {"/a": to("/b", 307), "/b": Reply()}
    ref = http.stage.ref(await http.stage.artifacts.put("job_x/in", b"content" * 10_000))
    await http.run({"url": f"{web.url}/a", "method": "PUT", "body_ref": ref.uri}, {"body_ref": ref})
    assert [received.body for received in web.received] == [b"content" * 10_000] * 2


async def test_credentials_are_not_shown_to_another_origin(http: Http, web: Web) -> None:
    async with Web({"/b": Reply()}) as other:
        web.routes |= {"/a": to(f"{other.url}/b", 307), "/c": to("/d"), "/d": Reply()}
        secrets = {"bearer_token": "t0ken", "header_X-Api-Key": "k3y", "headers": '{"Cookie": "c=1", "Accept": "a/b"}'}
        await http.get(f"{web.url}/a", method="POST", **secrets)
        shown = other.received[0].headers
        assert not {"authorization", "x-api-key", "cookie"} & shown.keys()
        assert shown["accept"] == "a/b"
        assert shown["idempotency-key"] == web.received[0].headers["idempotency-key"]
        await http.get(f"{web.url}/c", **secrets)
        again = web.received[-1]
        assert (again.path, again.headers["authorization"], again.headers["x-api-key"]) == ("/d", "Bearer t0ken", "k3y")


def test_origins() -> None:
    here = ("https", "a.example", 443)
    assert same_origin(here, here)
    assert same_origin(("http", "a.example", 80), here)
    for other in (("http", "a.example", 80), ("https", "b.example", 443), ("https", "a.example", 8443)):
        assert not same_origin(here, other)
    assert not same_origin(("http", "a.example", 8080), ("https", "a.example", 8443))
    headers = (("Authorization", "x"), ("Content-Type", "y"), ("X-Any", "z"))
    assert headers_after(headers, here, here, keep_body=False) == (headers[0], headers[2])
    assert headers_after(headers, here, ("https", "b.example", 443), keep_body=True) == (headers[1],)
