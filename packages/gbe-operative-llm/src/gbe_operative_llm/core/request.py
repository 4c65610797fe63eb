"""From a task's params to the body of `POST {base}/chat/completions`. What is wrong with them is found here.

| param | is |
|---|---|
| `model` | the model; the host may have a default |
| `prompt` | what the user says; or else |
| `messages` | the conversation: a JSON array of `{"role": …, "content": …}` |
| `system` | what comes before either |
| `temperature`, `max_tokens` | as the service has them |
| `response_format` | `text` (the default) or `json`: then an answer that is no JSON fails the task |
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import msgspec

PARAMS = ("model", "prompt", "messages", "system", "temperature", "max_tokens", "response_format")
OF_THE_HOST = {
    "base_url": "GBE_LLM_BASE_URL",
    "api_key": "GBE_LLM_API_KEY",
    "api_key_file": "GBE_LLM_API_KEY_FILE",
    "proxy": "GBE_LLM_PROXY",
    "tls_ca": "GBE_LLM_TLS_CA",
}
"""What a job can't choose: whoever chooses the service gets the key."""

ROLES = ("system", "developer", "user", "assistant", "tool")
MAX_MODEL = 200


class ParamError(ValueError):
    """A param that makes no request; the text names it."""


class Request(msgspec.Struct, frozen=True):
    """`body`: the JSON to send. `json`: whether the answer has to be JSON."""

    body: bytes
    json: bool


def request_of(params: Mapping[str, str], default_model: str | None) -> Request:
    """The request. Raises `ParamError`."""
    _check_names(params)
    model = params.get("model", "").strip() or (default_model or "")
    if not model:
        raise ParamError("missing param: model (and this host has no default, GBE_LLM_MODEL)")
    if len(model) > MAX_MODEL or not model.isprintable():
        raise ParamError(f"model: {_short(model)} is no name of a model")
    body: dict[str, Any] = {"model": model, "messages": _messages(params)}
    if "temperature" in params:
        body["temperature"] = _number(params["temperature"])
    if "max_tokens" in params:
        body["max_tokens"] = _whole(params["max_tokens"])
    wanted = params.get("response_format", "text").strip().lower()
    if wanted not in ("text", "json"):
        raise ParamError(f"response_format: {_short(wanted)} is neither text nor json")
    if wanted == "json":
        body["response_format"] = {"type": "json_object"}
    try:
        return Request(msgspec.json.encode(body), wanted == "json")
    except UnicodeError as error:
        raise ParamError(f"not Unicode: {error}") from error


def _check_names(params: Mapping[str, str]) -> None:
    for name in params:
        if name in OF_THE_HOST:
            raise ParamError(
                f"{name} can't be a param: which service is asked is the host's business, {OF_THE_HOST[name]}"
            )
        if name not in PARAMS:
            near = difflib.get_close_matches(name, PARAMS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(PARAMS)}"
            raise ParamError(f"unknown param: {_short(name)} ({hint})")


def _messages(params: Mapping[str, str]) -> list[Any]:
    if "prompt" in params and "messages" in params:
        raise ParamError("both prompt and messages are given")
    messages: list[Any] = []
    if "system" in params:
        messages.append({"role": "system", "content": params["system"]})
    if "messages" in params:
        messages += _conversation(params["messages"])
    elif params.get("prompt", "").strip():
        messages.append({"role": "user", "content": params["prompt"]})
    else:
        raise ParamError("missing param: prompt (or messages)")
    return messages


def _conversation(text: str) -> list[Any]:
    try:
        value = msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ParamError(f"messages: not JSON: {error}") from error
    if not isinstance(value, list) or not value:
        raise ParamError('messages: expected a JSON array, like [{"role": "user", "content": "hello"}]')
    for number, message in enumerate(value):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise ParamError(f"messages[{number}]: expected an object with a role, one of {', '.join(ROLES)}")
        if not isinstance(message.get("content"), str | list) and "tool_calls" not in message:
            raise ParamError(f"messages[{number}]: no content")
    return value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 2:
        raise ParamError(f"temperature: {_short(text)} is no number from 0 to 2")
    return value


def _whole(text: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise ParamError(f"max_tokens: {_short(text)} is no whole number from 1 on")
    return int(text)


def _short(text: str) -> str:
    return repr(text if len(text) <= 100 else text[:100] + "…")
