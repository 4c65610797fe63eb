"""From what the service answers to a task's outcome, or to the error that it is."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from gbe_jobs_domain.edges import Inline, inline
from gbe_jobs_domain.outcomes import Completed
from gbe_operative.contract import OperativeError
from gbe_operative.core.http_retry import retry_after, worth_another

ERROR_CHARACTERS = 500
NO_MONEY = "insufficient_quota"
"""Comes with 429, and waiting does not heal it."""

_FENCE = re.compile(r"\s*```(?:json)?[ \t]*\n(.*)\n[ \t]*```\s*", re.DOTALL | re.IGNORECASE)
_NO_SENSE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Message(msgspec.Struct):
    content: str | list[Any] | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    # What a service says about its answer is no reason to lose the answer.
    model: Any = None
    usage: Any = None


_decode = msgspec.json.Decoder(_Completion).decode


def outcome_of(body: bytes, wants_json: bool) -> Completed:
    """The outcome of an answer with status 200. Raises `OperativeError`."""
    try:
        completion = _decode(body)
    except _NO_SENSE as error:
        raise OperativeError(f"the service's answer makes no sense: {error}; it begins with {body[:100]!r}") from error
    if not completion.choices:
        raise OperativeError("the service's answer has no choices")
    choice = completion.choices[0]
    text = _text(choice.message.content)
    data: dict[str, Any] = {
        "text": text,
        "model": completion.model if isinstance(completion.model, str) else "",
        "usage": completion.usage if isinstance(completion.usage, dict) else None,
        "finish_reason": choice.finish_reason,
    }
    if choice.message.refusal:
        raise OperativeError(
            f"the model refused: {choice.message.refusal[:ERROR_CHARACTERS]}", retryable=False, data=inline(data)
        )
    value = structured(text)
    if value is not None:
        data["json"] = value
    elif wants_json:
        why = "cut off by max_tokens" if choice.finish_reason == "length" else "not JSON"
        raise OperativeError(f"the model's answer is {why}: {_one_line(text)}", data=inline(data), output=_lines(text))
    return Completed(output=_lines(text), data=Inline(msgspec.Raw(msgspec.json.encode(data))))


def error_of(status: int, phrase: str, headers: Any, body: bytes) -> OperativeError:
    """The error of an answer with any other status. `headers`: a mapping with names in lower case."""
    message, code = _explained(body)
    said = f"the service answered {status} {phrase}".rstrip()
    if status in (401, 403):
        said += " (is GBE_LLM_API_KEY right?)"
    return OperativeError(
        f"{said}: {_one_line(message)}" if message else said,
        retryable=worth_another(status) and code != NO_MONEY,
        retry_after=retry_after(headers.get("retry-after")),
        data=inline({"status": status, "error": message[:ERROR_CHARACTERS]}),
    )


def structured(text: str) -> msgspec.Raw | None:
    """The JSON object or array that a text is, in a Markdown fence perhaps; None where it is none."""
    fenced = _FENCE.fullmatch(text)
    inner = (fenced[1] if fenced else text).strip()
    if not inner.startswith(("{", "[")):
        return None
    raw = inner.encode("utf-8", "replace")
    try:
        msgspec.json.decode(raw)
    except _NO_SENSE:
        return None
    return msgspec.Raw(raw)


def _text(content: str | list[Any] | None) -> str:
    """Some services answer in parts."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str))
    return content or ""


def _explained(body: bytes) -> tuple[str, str]:
    """The message and the code of an error, in the form most services have, or the text as it is."""
    try:
        value = msgspec.json.decode(body)
    except _NO_SENSE:
        return body.decode("utf-8", "replace"), ""
    error = value.get("error") if isinstance(value, dict) else None
    if isinstance(error, dict):
        return str(error.get("message") or ""), str(error.get("code") or error.get("type") or "")
    return (error if isinstance(error, str) else body.decode("utf-8", "replace")), ""


def _one_line(text: str) -> str:
    return " ".join(text[: 4 * ERROR_CHARACTERS].split())[:ERROR_CHARACTERS]


def _lines(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n") if text else []
