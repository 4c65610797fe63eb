"""Params that make no request are rejected before anything is sent (P6, hostile params)."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gbe_jobs_domain.outcomes import FailureKind
from gbe_operative.contract import OperativeError
from gbe_operative_http.core.request import METHODS, Limits, ParamError, Request, checked_url, request_of
from gbe_operative_http.testing import Web

Http = Any  # of conftest.py, which can't be imported

LIMITS = Limits(10, 60, 1000)
URL = "http://example.org/"


def request(**params: str) -> Request:
    return request_of({"url": URL, **params}, {}, "task_x", LIMITS)


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"url": ""}, "missing param: url"),
        ({"url": "  "}, "missing param: url"),
        ({"method": "YEET"}, "method: 'YEET' is not one of GET, HEAD"),
        ({"method": "GET / HTTP/1.1\r\nX: y\r\n"}, "method: "),
        ({"method": ""}, "method: ''"),
        ({"method": "CONNECT"}, "method: 'CONNECT'"),
        ({"url": "file:///etc/passwd"}, "url: 'file:///etc/passwd' is neither http nor https"),
        ({"url": "gopher://x/"}, "neither http nor https"),
        ({"url": "unix:///var/run/docker.sock"}, "neither http nor https"),
        ({"url": "/relative"}, "neither http nor https"),
        ({"url": "example.org"}, "neither http nor https"),
        ({"url": "http:///path"}, "names no host"),
        ({"url": "http://h:0/"}, "no port, that there may be"),
        ({"url": "http://h:65536/"}, "no port, that there may be"),
        ({"url": "http://h:x/"}, "is no URL"),
        ({"url": "http://[::1/"}, "is no URL"),
        ({"url": "http://a b/"}, "a space, a backslash or a control character"),
        ({"url": "http://a/\r\nHost: evil"}, "control character"),
        ({"url": "http://a\\@b/"}, "a backslash"),
        ({"url": "http://a/\x00"}, "control character"),
        ({"url": "http://a/\udcff"}, "is no URL"),
        ({"url": "http://a/" + "x" * 20_000}, "url: 20009 characters; 16384 at most"),
        ({"url": "http://" + "x" * 64 + ".example/"}, "names no host"),
        ({"url": "http://x..example/"}, "names no host"),
        ({"url": "http://[fe80::1%25eth0]/"}, "names no host"),
        ({"url": "http://x;y/"}, "names no host"),
        ({"headers": "{broken"}, "headers: not JSON"),
        ({"headers": "[1]"}, "headers: expected a JSON object"),
        ({"headers": '{"a": {"b": 1}}'}, "headers: expected strings, numbers, true and false; found dict"),
        ({"headers": '{"a": null}'}, "found NoneType"),
        ({"headers": '{"X": "a\\r\\nEvil: 1"}'}, "headers: X: a line break in the value"),
        ({"headers": '{"X\\r\\nEvil": "1"}'}, "is no name of a header"),
        ({"headers": '{"X Y": "1"}'}, "is no name of a header"),
        ({"headers": '{"": "1"}'}, "is no name of a header"),
        ({"headers": '{"X": "ü"}'}, "a character that is not printable ASCII"),
        ({"headers": '{"X": "\\u0000"}'}, "not printable ASCII"),
        ({"headers": '{"Host": "internal"}'}, "Host can't be set"),
        ({"headers": '{"content-length": "5"}'}, "content-length can't be set"),
        ({"headers": '{"Transfer-Encoding": "chunked"}'}, "can't be set"),
        ({"header_Connection": "close"}, "'header_Connection': Connection can't be set"),
        ({"header_X": "a\nb"}, "header_X: a line break"),
        ({"header_": "x"}, "is no name of a header"),
        ({"headers": '{"X": "1"}', "header_x": "2"}, "x is given twice"),
        ({"headers": json.dumps({"X": "x" * 70_000})}, "headers: 70005 bytes; 65536 at most"),
        ({"headers": json.dumps({f"X{n}": "1" for n in range(101)})}, "headers: 101 of them; 100 at most"),
        ({"query": "a=b"}, "query: not JSON"),
        ({"query": '{"a": {"b": 1}}'}, "query: expected strings"),
        ({"query": json.dumps({"a": "x" * 20_000})}, "query: makes a URL of"),
        ({"query": "[" * 5000}, "query: not JSON"),
        ({"body": "a", "json": "1"}, "both body and json are given"),
        ({"body": "\udcff"}, "body: not Unicode"),
        ({"json": "{"}, "json: '{' is not JSON"),
        ({"json": "hello"}, "json: 'hello' is not JSON"),
        ({"body_ref": "/etc/passwd"}, "body_ref: '/etc/passwd' is no store:// reference"),
        ({"bearer_token": "a", "basic_auth": "b:c"}, "several kinds of credentials: bearer_token, basic_auth"),
        ({"bearer_token": "a\r\nX: y"}, "bearer_token: a line break"),
        ({"basic_auth": "nocolon"}, "basic_auth: expected user:password"),
        ({"basic_auth": "a:b\n"}, "basic_auth: a control character"),
        ({"url": "http://u:p%0a@h/"}, "credentials in url: a control character"),
        ({"bearer_token": "a", "headers": '{"authorization": "b"}'}, "which shall it be"),
        ({"idempotency_key": "a\nb"}, "idempotency_key: a line break"),
        ({"follow_redirects": "maybe"}, "follow_redirects: 'maybe'"),
        ({"max_redirects": "-1"}, "max_redirects: '-1'"),
        ({"max_redirects": "31"}, "no whole number from 0 to 30"),
        ({"max_redirects": "²"}, "max_redirects"),
        ({"expect_status": "ok"}, "expect_status: 'ok'"),
        ({"expect_status": ""}, "expect_status: ''"),
        ({"expect_status": "999"}, "expect_status: '999'"),
        ({"connect_timeout": "0"}, "connect_timeout: '0'"),
        ({"connect_timeout": "nan"}, "connect_timeout: 'nan'"),
        ({"read_timeout": "inf"}, "read_timeout: 'inf'"),
        ({"read_timeout": "soon"}, "read_timeout: 'soon'"),
        ({"max_body": "1e6"}, "max_body: '1e6'"),
        ({"max_body": "9" * 5000}, "max_body: "),
        ({"metod": "GET"}, "unknown param: 'metod' (did you mean method?)"),
        ({"verify": "false"}, "unknown param: 'verify'"),
        ({"proxy": "http://x"}, "unknown param: 'proxy'"),
    ],
)
async def test_rejected(http: Http, params: dict[str, str], says: str) -> None:
    with pytest.raises(OperativeError) as caught:
        await http.run({"url": URL, **params})
    error = caught.value
    assert says in str(error)
    assert (error.kind, error.retryable) == (FailureKind.REJECTED, False)
    assert len(str(error)) < 1000
    str(error).encode("utf-8", "backslashreplace")


async def test_nothing_is_sent(http: Http, web: Web) -> None:
    for params in ({"method": "YEET"}, {"headers": "x"}, {"header_X": "a\r\nb"}, {"json": "{"}):
        with pytest.raises(OperativeError):
            await http.get(web.url, **params)
    assert web.connections == 0


def test_credentials_of_a_url_are_in_no_text() -> None:
    for url in ("ftp://me:hunter2@h/", "http://me:hunter2@h:x/", "http://me:hunter2@h/ x", "http://me:hun@ter2@[/"):
        with pytest.raises(ParamError) as caught:
            request(url=url)
        assert "hun" not in str(caught.value)
    made = request(url="https://me:hunter2@h/x#frag")
    assert str(made.url) == "https://h/x"
    assert ("Authorization", "Basic bWU6aHVudGVyMg==") in made.headers
    assert {"hunter2", "bWU6aHVudGVyMg=="} <= set(made.conceal)


def test_what_is_made_of_good_params() -> None:
    made = request(
        method=" delete ", follow_redirects="False", expect_status="2xx,404", max_body="10", read_timeout="5"
    )
    assert (made.method, made.redirects) == ("DELETE", None)
    assert made.expected == frozenset([*range(200, 300), 404])
    assert made.limits == Limits(10, 5, 10)
    assert request(max_body="5000").limits.max_body == 1000, "a job can only ask for less"
    assert request(max_redirects="0").redirects == 0
    assert str(request(url="http://h/?a=b%20c", query='{"d": "e f"}').url) == "http://h/?a=b%20c&d=e+f"
    assert str(request(url="http://bücher.example/ü").url) == "http://xn--bcher-kva.example/%C3%BC"


@given(
    st.dictionaries(st.sampled_from(["url", "method", "headers", "query", "body", "json", "expect_status"]), st.text())
)
def test_any_text_makes_a_request_or_a_clear_error(params: dict[str, str]) -> None:
    try:
        made = request(**params)
    except ParamError:
        return
    assert made.method in METHODS
    built = httpx.Request(made.method, made.url, headers=made.headers)
    assert not [pair for pair in built.headers.raw if b"\r" in pair[0] + pair[1] or b"\n" in pair[0] + pair[1]]


@given(st.text(max_size=50), st.text(max_size=50))
def test_no_spelling_of_a_url_keeps_its_credentials(user: str, host: str) -> None:
    told = ""
    try:
        url, _ = checked_url(f"http://{user}:hunter2-secret@{host}/")
        told = url.host
    except ParamError as error:
        told = str(error)
    assert "hunter2-secret" not in told
