"""From a task's params to the request they mean. Everything that is wrong with them is found here, before any request.

| param | is |
|---|---|
| `url` | `http` or `https`; credentials in it become a basic `Authorization` |
| `method` | GET by default, or HEAD, POST, PUT, PATCH, DELETE, OPTIONS |
| `headers`, `header_<Name>` | a JSON object; one header each, where the value comes along an edge or is a secret |
| `query` | a JSON object, added to the URL's query; an array repeats its name |
| `body`, `json`, `body_ref` | text; JSON; an artifact |
| `bearer_token`, `basic_auth` | credentials, made for `{secret: name}`; `basic_auth` is `user:password` |
| `idempotency_key` | of methods that change something; the task's id by default, none where it is empty |
| `follow_redirects`, `max_redirects` | true and 10 by default |
| `expect_status` | what counts as success, `200,404` or `2xx,300-399`; by default all below 400 |
| `connect_timeout`, `read_timeout`, `max_body` | the host's settings by default; `max_body` can only be less |
"""

from __future__ import annotations

import binascii
import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes, urlencode

import httpx
import msgspec

from gbe_jobs_domain.edges import Ref
from gbe_operative_http.core.redirects import Headers, Origin

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
WITHOUT_EFFECT = ("GET", "HEAD", "OPTIONS")

PARAMS = (
    "url",
    "method",
    "headers",
    "query",
    "body",
    "json",
    "body_ref",
    "bearer_token",
    "basic_auth",
    "idempotency_key",
    "follow_redirects",
    "max_redirects",
    "expect_status",
    "connect_timeout",
    "read_timeout",
    "max_body",
)
HEADER = "header_"

MAX_URL = 16 * 1024
MAX_HEADERS = 100
MAX_HEADER_BYTES = 64 * 1024
"""Of all headers together; servers take less as a rule."""
MAX_REDIRECTS = 30
DEFAULT_REDIRECTS = 10

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}")  # RFC 9110, 5.6.2
_VALUE = re.compile(r"(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?")  # RFC 9110, 5.5, without obs-text
_NOT_IN_URL = re.compile(r"[\x00-\x20\x7f\\]")
_USERINFO = re.compile(r"//.*@", re.DOTALL)
"""Of a text that need not be a URL: rather too much than a part of a password."""
_HOST = re.compile(r"(?=.{1,254}\Z)(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
_STATUS = re.compile(r"([1-5])xx|([1-5]\d\d)(?:-([1-5]\d\d))?")

OURS = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that say how a message is sent, which is not the job's business."""

_DEFAULT_PORTS = {"http": 80, "https": 443}


class ParamError(ValueError):
    """A param that makes no request; the text names it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of the host: times in seconds, the body in bytes."""

    connect_timeout: float
    read_timeout: float
    max_body: int


@dataclass(frozen=True, slots=True)
class Request:
    """A request that may be sent. `url` has neither credentials nor a fragment."""

    method: str
    url: httpx.URL
    headers: Headers
    content: bytes | Ref | None
    redirects: int | None
    """How many are followed; None = none is, and a redirect is an answer."""
    expected: frozenset[int]
    limits: Limits
    conceal: tuple[str, ...] = ()
    """What is made of credentials and must not be told."""


def request_of(params: Mapping[str, str], refs: Mapping[str, Ref], task_id: str, host: Limits) -> Request:
    """The request. Raises `ParamError`."""
    _check_names(params)
    url, userinfo = checked_url(_required(params, "url"))
    url = _with_query(url, params)
    method = params.get("method", "GET").strip().upper()
    if method not in METHODS:
        raise ParamError(f"method: {_short(params['method'])} is not one of {', '.join(METHODS)}")
    headers = dict(_headers(params))
    authorization, conceal = _authorization(params, userinfo)
    if authorization is not None:
        if "authorization" in headers:
            raise ParamError("an Authorization header is given, and credentials as well: which shall it be?")
        headers["authorization"] = ("Authorization", authorization)
    content, media_type = _content(params, refs)
    if media_type is not None:
        headers.setdefault("content-type", ("Content-Type", media_type))
    key = params.get("idempotency_key", "" if method in WITHOUT_EFFECT else task_id)
    if key:
        headers.setdefault("idempotency-key", ("Idempotency-Key", _value("idempotency_key", key)))
    _check_size(headers.values())
    return Request(
        method,
        url,
        tuple(headers.values()),
        content,
        _redirects(params),
        _expected(params),
        Limits(
            _seconds(params, "connect_timeout", host.connect_timeout),
            _seconds(params, "read_timeout", host.read_timeout),
            min(_whole(params, "max_body", host.max_body, 0, 1 << 50), host.max_body),
        ),
        conceal,
    )


def checked_url(text: str, what: str = "url") -> tuple[httpx.URL, str]:
    """The URL without credentials and fragment, and the credentials as they were written. Raises `ParamError`."""
    if len(text) > MAX_URL:
        raise ParamError(f"{what}: {len(text)} characters; {MAX_URL} at most")
    text = text.strip()
    if _NOT_IN_URL.search(text):
        raise ParamError(f"{what}: a space, a backslash or a control character in {shown(text)}")
    try:
        text.encode()
        url = httpx.URL(text)
        userinfo = url.userinfo.decode("ascii", "replace")
        url = url.copy_with(userinfo=b"", fragment=None)
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        reason = "" if "@" in text else f": {error}"
        raise ParamError(f"{what}: {shown(text)} is no URL{reason}") from error
    if url.scheme not in _DEFAULT_PORTS:
        raise ParamError(f"{what}: {shown(text)} is neither http nor https")
    if _HOST.fullmatch(url.raw_host.decode("ascii", "replace")) is None or not 0 < port_of(url) < 65536:
        raise ParamError(f"{what}: {shown(text)} names no host, or no port, that there may be")
    return url, userinfo


def origin_of(url: httpx.URL) -> Origin:
    """Whom a request goes to."""
    return url.scheme, url.host, port_of(url)


def port_of(url: httpx.URL) -> int:
    """The port, also where it is the usual one."""
    return _DEFAULT_PORTS[url.scheme] if url.port is None else url.port


def shown(url: str) -> str:
    """A URL for people, shortened, without credentials."""
    return _short(_USERINFO.sub("//***@", url))


def _check_names(params: Mapping[str, str]) -> None:
    for name in params:
        if name not in PARAMS and not name.startswith(HEADER):
            near = difflib.get_close_matches(name, PARAMS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(PARAMS)}, {HEADER}<Name>"
            raise ParamError(f"unknown param: {_short(name)} ({hint})")


def _required(params: Mapping[str, str], name: str) -> str:
    value = params.get(name, "")
    if not value.strip():
        raise ParamError(f"missing param: {name}")
    return value


def _with_query(url: httpx.URL, params: Mapping[str, str]) -> httpx.URL:
    if "query" not in params:
        return url
    pairs = [(name, text) for name, values in _object(params, "query").items() for text in _texts("query", values)]
    try:
        added = urlencode(pairs).encode()
    except UnicodeError as error:
        raise ParamError(f"query: not Unicode: {error}") from error
    url = url.copy_with(query=b"&".join(part for part in (url.query, added) if part) or None)
    if len(str(url)) > MAX_URL:
        raise ParamError(f"query: makes a URL of {len(str(url))} characters; {MAX_URL} at most")
    return url


def _headers(params: Mapping[str, str]) -> Iterator[tuple[str, tuple[str, str]]]:
    given = [
        ("headers", name, _text("headers", value))
        for name, value in (_object(params, "headers") if "headers" in params else {}).items()
    ]
    given += [(name, name.removeprefix(HEADER), value) for name, value in params.items() if name.startswith(HEADER)]
    seen = set()
    for param, name, value in given:
        if _TOKEN.fullmatch(name) is None:
            raise ParamError(f"{_short(param)}: {_short(name)} is no name of a header")
        key = name.lower()
        if key in OURS:
            raise ParamError(f"{_short(param)}: {name} can't be set")
        if key in seen:
            raise ParamError(f"{_short(param)}: {name} is given twice")
        seen.add(key)
        yield key, (name, _value(f"{param}: {name}" if param == "headers" else param, value))


def _value(what: str, text: str) -> str:
    """A header's value. Its text is in no error: it may be a secret."""
    text = text.strip(" \t")
    if _VALUE.fullmatch(text) is None:
        wrong = "a line break" if "\r" in text or "\n" in text else "a character that is not printable ASCII"
        raise ParamError(f"{what}: {wrong} in the value")
    return text


def _check_size(headers: Collection[tuple[str, str]]) -> None:
    if len(headers) > MAX_HEADERS:
        raise ParamError(f"headers: {len(headers)} of them; {MAX_HEADERS} at most")
    size = sum(len(name) + len(value) + 4 for name, value in headers)
    if size > MAX_HEADER_BYTES:
        raise ParamError(f"headers: {size} bytes; {MAX_HEADER_BYTES} at most")


def _authorization(params: Mapping[str, str], userinfo: str) -> tuple[str | None, tuple[str, ...]]:
    """The header's value, and what must not be told besides what the secrets themselves are."""
    ways = [name for name in ("bearer_token", "basic_auth") if name in params] + (
        ["credentials in url"] * bool(userinfo)
    )
    if len(ways) > 1:
        raise ParamError(f"several kinds of credentials: {', '.join(ways)}")
    if "bearer_token" in params:
        token = _value("bearer_token", params["bearer_token"])
        return f"Bearer {token}", (token,)
    if "basic_auth" in params:
        pair = params["basic_auth"]
        if ":" not in pair:
            raise ParamError("basic_auth: expected user:password")
        secret = pair.encode("utf-8", "surrogateescape")
    elif userinfo:
        secret = unquote_to_bytes(userinfo if ":" in userinfo else f"{userinfo}:")
    else:
        return None, ()
    if any(byte < 0x20 or byte == 0x7F for byte in secret):
        raise ParamError(f"{ways[0]}: a control character")
    encoded = binascii.b2a_base64(secret, newline=False).decode()
    password = secret.partition(b":")[2].decode("utf-8", "replace")
    written = userinfo.partition(":")[2]
    return f"Basic {encoded}", (encoded, password, written)


def _content(params: Mapping[str, str], refs: Mapping[str, Ref]) -> tuple[bytes | Ref | None, str | None]:
    given = [name for name in ("body", "json", "body_ref") if name in params]
    if len(given) > 1:
        raise ParamError(f"both {' and '.join(given)} are given")
    if not given:
        return None, None
    (name,) = given
    text = params[name]
    if name == "body_ref":
        ref = refs.get(name)
        if ref is None:
            raise ParamError(f"body_ref: {_short(text)} is no store:// reference")
        return ref, ref.media_type if _VALUE.fullmatch(ref.media_type) else None
    try:
        data = text.encode()
    except UnicodeError as error:
        raise ParamError(f"{name}: not Unicode: {error}") from error
    if name == "body":
        return data, "text/plain; charset=utf-8"
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ParamError(f"json: {_short(text)} is not JSON: {error}") from error
    return data, "application/json"


def _redirects(params: Mapping[str, str]) -> int | None:
    most = _whole(params, "max_redirects", DEFAULT_REDIRECTS, 0, MAX_REDIRECTS)
    word = params.get("follow_redirects", "true").strip().lower()
    if word not in ("true", "false"):
        raise ParamError(f"follow_redirects: {_short(word)} is neither true nor false")
    return most if word == "true" else None


def _expected(params: Mapping[str, str]) -> frozenset[int]:
    if "expect_status" not in params:
        return frozenset(range(200, 400))
    found: set[int] = set()
    for part in params["expect_status"].split(","):
        match = _STATUS.fullmatch(part.strip().lower())
        if match is None:
            raise ParamError(f"expect_status: {_short(part)} is no status, class (2xx) or range (200-299)")
        if match[1]:
            found |= set(range(int(match[1]) * 100, int(match[1]) * 100 + 100))
        else:
            found |= set(range(int(match[2]), int(match[3] or match[2]) + 1))
    return frozenset(found)


def _seconds(params: Mapping[str, str], name: str, default: float) -> float:
    if name not in params:
        return default
    try:
        value = float(params[name])
    except ValueError:
        value = -1.0
    if not 0 < value <= 86_400:
        raise ParamError(f"{name}: {_short(params[name])} is no number of seconds between 0 and 86400")
    return value


def _whole(params: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    if name not in params:
        return default
    text = params[name].strip()
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise ParamError(f"{name}: {_short(text)} is no whole number from {least} to {most}")
    return int(text)


def _object(params: Mapping[str, str], name: str) -> dict[str, object]:
    text = params[name]
    try:
        value = msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ParamError(f'{name}: not JSON: {error}; expected an object, like {{"name": "value"}}') from error
    if not isinstance(value, dict):
        raise ParamError(f'{name}: expected a JSON object, like {{"name": "value"}}')
    return value


def _texts(name: str, value: object) -> list[str]:
    return [_text(name, item) for item in value] if isinstance(value, list) else [_text(name, value)]


def _text(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    raise ParamError(f"{name}: expected strings, numbers, true and false; found {type(value).__name__}")


def _short(text: str) -> str:
    return repr(text if len(text) <= 100 else text[:100] + "…")
