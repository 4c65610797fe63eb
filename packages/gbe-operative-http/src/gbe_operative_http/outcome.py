"""From an answer to a task's outcome: what is small goes along inline, what is large or binary by reference.

Data: `{"status": 200, "headers": {…}, "url": "…", "body": …}`, with `body_ref` for `body` where it is in the artifact
store. Names of headers are in lower case; `set-cookie` is an array, other repeated ones are joined by commas.
"""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec

from gbe_jobs_domain.edges import Inline, Ref
from gbe_jobs_domain.outcomes import Completed
from gbe_operative.contract import Execution, OperativeError
from gbe_operative.core.http_retry import retry_after, worth_another
from gbe_operative_http.client import Answer, BodyTooLarge, body_of
from gbe_operative_http.core.content import JSON, Content, Kind, content_of, guessed, structured, text_of
from gbe_operative_http.core.inflate import CODINGS
from gbe_operative_http.core.request import Request

INLINE_BYTES = 128 * 1024
"""A body up to this size is part of the data."""

FAILED_BYTES = 64 * 1024
"""Of the body of an answer that fails the task, that much is kept."""

TAIL_BYTES = 16 * 1024
"""Of a text in the artifact store, that much is in the output as well."""

ERROR_CHARACTERS = 500

_encode = msgspec.json.Encoder().encode


async def outcome_of(execution: Execution, request: Request, answer: Answer) -> Completed:
    """Read the answer. Raises `OperativeError` where it fails the task."""
    response, url = answer.response, str(answer.request.url)
    if response.status_code not in request.expected:
        raise await _failed(execution, answer)
    content = _content_of(response)
    body = body_of(response, request.limits.max_body)
    start = bytearray()
    complete = True
    try:
        async for piece in body:
            start += piece
            if len(start) > INLINE_BYTES:
                complete = False
                break
        head = bytes(start)
        data = _about(response, url)
        if complete:
            text = text_of(head, content)
            if text is not None:
                data["body"] = text if (value := structured(text, content)) is None else value
                return Completed(output=_lines(text), data=Inline(msgspec.Raw(_encode(data))))
        else:
            content = guessed(head, content)
        tail = _Tail()
        ref = await execution.spill(
            head if complete else tail.follow(_from(head, body), content), *_named(content, complete)
        )
    except BodyTooLarge as error:
        raise OperativeError(
            f"{answer.request.method} {url}: {error} (param max_body, and GBE_HTTP_MAX_BODY of the host)",
            retryable=False,
            data=Inline(msgspec.Raw(_encode(_about(response, url)))),
        ) from error
    finally:
        await body.aclose()
    data["body_ref"] = ref.uri
    kept = tail.kept if execution.masker is None else execution.masker.excerpt_raw(tail.kept)
    return Completed(
        output=_summary(ref, content, kept, complete), data=Inline(msgspec.Raw(_encode(data))), result_ref=ref.uri
    )


async def _failed(execution: Execution, answer: Answer) -> OperativeError:
    """The error of an answer that was not expected."""
    request, response, url = answer.request, answer.response, str(answer.request.url)
    start = bytearray()
    cut = False
    body = body_of(response, request.limits.max_body)
    try:
        async for piece in body:
            start += piece
            if len(start) > FAILED_BYTES:
                cut = True
                break
    except BodyTooLarge:
        cut = True
    finally:
        await body.aclose()
    head = bytes(start[:FAILED_BYTES])
    content = _content_of(response)
    text = text_of(head, content)
    if text is None:
        text = head.decode("utf-8", "replace") if content.kind is Kind.TEXT or cut else ""
    if execution.masker is not None:  # before anything is cut out of it
        text = execution.masker.excerpt(text) if cut else execution.mask(text)
    data = _about(response, url)
    value = None if cut else structured(text, content)
    data["body"] = text if value is None else value
    if cut:
        data["body_cut"] = True
    status = response.status_code
    said = " ".join(text.split())[:ERROR_CHARACTERS]
    error = f"{request.method} {url}: {status} {response.reason_phrase}".rstrip()
    return OperativeError(
        f"{error}: {said}" if said else error,
        retryable=worth_another(status),
        retry_after=retry_after(response.headers.get("retry-after")),
        data=Inline(msgspec.Raw(_encode(data))),
        output=_lines(text),
    )


def _about(response: httpx.Response, url: str) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    for name, value in response.headers.multi_items():
        if name == "set-cookie":
            headers.setdefault(name, []).append(value)
        else:
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return {"status": response.status_code, "headers": headers, "url": url}


def _content_of(response: httpx.Response) -> Content:
    coding = response.headers.get("content-encoding", "").strip().lower()
    content = content_of(response.headers.get("content-type"))
    if coding and coding not in (*CODINGS, "identity"):
        return Content(Kind.BINARY, content.media_type, None)
    return content


def _lines(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n") if text else []


def _named(content: Content, complete: bool) -> tuple[str, str]:
    """The artifact's name and media type. JSON is called that whatever its dialect: paths into it can be followed."""
    if content.kind is Kind.JSON and not complete:
        return "body.json", JSON
    if content.kind in (Kind.JSON, Kind.TEXT):
        media_type = "text/plain" if content.kind is Kind.JSON else content.media_type
        return "body.txt", f"{media_type}; charset=utf-8" if content.charset else media_type
    return "body", content.media_type


class _Tail:
    """Remembers the end of what goes by."""

    def __init__(self) -> None:
        self._recent = bytearray()

    @property
    def kept(self) -> bytes:
        """The end."""
        return bytes(self._recent[-TAIL_BYTES:])

    async def follow(self, chunks: AsyncIterator[bytes], content: Content) -> AsyncIterator[bytes]:
        """The chunks, in UTF-8 where they are text of another charset."""
        decoder = (
            codecs.getincrementaldecoder(content.charset)("replace") if content.transcoded and content.charset else None
        )
        async for raw in chunks:
            chunk = raw if decoder is None else decoder.decode(raw).encode()
            self._recent += chunk[-TAIL_BYTES:]
            if len(self._recent) > 4 * TAIL_BYTES:
                del self._recent[:-TAIL_BYTES]
            yield chunk
        if decoder is not None and (rest := decoder.decode(b"", final=True)):
            yield rest.encode()


async def _from(head: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for chunk in rest:
        yield chunk


def _summary(ref: Ref, content: Content, tail: bytes, complete: bool) -> list[str]:
    if content.kind is Kind.BINARY or complete or content.kind is Kind.UNKNOWN:
        return [f"[{ref.size} bytes of {content.media_type} are in {ref.uri}]"]
    omitted = max(0, ref.size - len(tail))
    note = f"[… {omitted} bytes omitted, all are in {ref.uri} …]"
    return [note, *_lines(tail.decode("utf-8", "replace"))]
