"""Streams: made as their owner wants them, or compared with what is there."""

from __future__ import annotations

from typing import Any

from gbe_nexus.errors import NexusError, NotFound, StreamConflict, StreamFull, Unavailable
from gbe_nexus.transport import ConsumerState, StreamSpec, StreamState
from gbe_nexus_nats.errors import STREAM_NAME_IN_USE, ServerRefusal
from gbe_nexus_nats.requests import Requests
from gbe_nexus_nats.wire import api_name, subject_pattern

_NANO = 1_000_000_000
_SHORTEST_WINDOW = 0.1
"""Seconds; the server's minimum for the duplicate window."""


async def ensure_stream(requests: Requests, spec: StreamSpec, replicas: int) -> None:
    """Create the stream, or see that the one of that name will do."""
    name = api_name(spec.name)
    wanted = stream_config(spec, replicas)
    full: StreamFull | None = None
    try:
        await requests.api(f"$JS.API.STREAM.CREATE.{name}", wanted)
        return
    except StreamConflict as error:
        cause = error.__cause__
        if not isinstance(cause, ServerRefusal) or cause.code != STREAM_NAME_IN_USE:
            raise
    except StreamFull as error:
        # The server looks whether there is room for one more before it looks whether there is one.
        full = error
    try:
        found: dict[str, Any] = (await requests.api(f"$JS.API.STREAM.INFO.{name}"))["config"]
    except NotFound:
        raise full or Unavailable(f"stream {name} was removed while it was looked at") from None
    differences = _differences(wanted, found)
    if differences:
        raise StreamConflict(f"stream {name} exists with other settings: {'; '.join(differences)}")


def stream_config(spec: StreamSpec, replicas: int) -> dict[str, Any]:
    """The server's configuration for a spec."""
    window = max(spec.duplicate_window, _SHORTEST_WINDOW)
    if spec.max_age > 0:
        window = min(window, spec.max_age)  # The server refuses a window longer than the messages live.
    for subject in spec.subjects:
        subject_pattern(subject)
    return {
        "name": spec.name,
        "subjects": list(spec.subjects),
        "retention": "workqueue" if spec.work_queue else "limits",
        "storage": "file",
        "num_replicas": replicas,
        "discard": "old" if spec.discard_old else "new",
        "max_age": int(spec.max_age * _NANO),
        "max_bytes": spec.max_bytes or -1,
        "max_msgs": spec.max_messages or -1,
        "max_msgs_per_subject": spec.max_per_subject or -1,
        "max_msg_size": spec.max_message_size or -1,
        "max_consumers": -1,
        "duplicate_window": int(window * _NANO),
        "allow_direct": True,
    }


# What an ecumene relies on, under the server's name and the contract's. Replicas, placement and the like are the
# operator's.
_COMPARED = {
    "retention": "work_queue",
    "discard": "discard_old",
    "max_age": "max_age",
    "max_bytes": "max_bytes",
    "max_msgs": "max_messages",
    "max_msgs_per_subject": "max_per_subject",
    "max_msg_size": "max_message_size",
    "duplicate_window": "duplicate_window",
}


def _differences(wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    differences = []
    if sorted(found.get("subjects") or []) != sorted(wanted["subjects"]):
        differences.append(f"subjects: found {sorted(found.get('subjects') or [])}, expected {wanted['subjects']}")
    for key, name in _COMPARED.items():
        there, here = _plain(key, found.get(key, 0)), _plain(key, wanted[key])
        if there != here:
            differences.append(f"{name}: found {there}, expected {here}")
    return differences


def _plain(key: str, value: Any) -> Any:
    """A setting as a person would say it: durations in seconds, "no limit" for the server's -1 and 0."""
    if key == "retention":
        return {"workqueue": True, "limits": False}.get(value, value)
    if key == "discard":
        return value == "old"
    if isinstance(value, int):
        if value <= 0:
            return "no limit"
        return f"{value / _NANO:g} s" if key in ("max_age", "duplicate_window") else value
    return value


async def stream_state(requests: Requests, stream: str) -> StreamState:
    """What the stream holds."""
    info = await requests.api(f"$JS.API.STREAM.INFO.{api_name(stream)}")
    state, config = info["state"], info["config"]
    return StreamState(
        name=stream,
        messages=state["messages"],
        bytes=state["bytes"],
        first_seq=state["first_seq"],
        last_seq=state["last_seq"],
        max_messages=max(config.get("max_msgs", 0), 0),
        max_bytes=max(config.get("max_bytes", 0), 0),
    )


async def consumer_state(requests: Requests, stream: str, name: str) -> ConsumerState:
    """What the consumer group has done and what waits for it."""
    info = await requests.api(f"$JS.API.CONSUMER.INFO.{api_name(stream)}.{api_name(name)}")
    return ConsumerState(
        name=name,
        ack_floor=info["ack_floor"]["stream_seq"],
        delivered=info["delivered"]["stream_seq"],
        pending=info["num_pending"],
        ack_pending=info["num_ack_pending"],
        waiting=info["num_waiting"],
    )


async def trim(requests: Requests, stream: str, before: int) -> int:
    """Delete what is below a sequence."""
    if before <= 1:
        return 0  # The server takes a purge without a sequence for a purge of everything.
    answer = await requests.api(f"$JS.API.STREAM.PURGE.{api_name(stream)}", {"seq": before})
    return int(answer["purged"])


async def message_limit(requests: Requests, stream: str) -> int:
    """The largest message the stream takes."""
    info = await requests.api(f"$JS.API.STREAM.INFO.{api_name(stream)}")
    limit = int(info["config"].get("max_msg_size", -1))
    if limit < 0:
        raise NexusError(f"stream {stream} has no limit")
    return limit


async def has_stream(requests: Requests, subject: str) -> bool:
    """Whether any stream takes the subject."""
    answer = await requests.api("$JS.API.STREAM.NAMES", {"subject": subject}, timeout=2.0)
    return bool(answer.get("streams"))
