"""Dead letters: what a message becomes that nobody could process."""

from __future__ import annotations

import base64

import msgspec

SUBJECT_PREFIX = "gbe._deadletter."


class DeadLetter(msgspec.Struct, frozen=True):
    """The message as it was, with the reason. `payload` is base64, since it may not even be text."""

    subject: str
    stream: str
    seq: int
    reason: str
    headers: dict[str, str]
    payload: str

    @property
    def body(self) -> bytes:
        """The payload's bytes."""
        return base64.b64decode(self.payload)


def dead_letter_subject(subject: str) -> str:
    """`gbe._deadletter.{domain}`: the domain is the second token of the original subject (`tasks`, `jobs`, …)."""
    tokens = subject.split(".")
    domain = tokens[1] if len(tokens) > 1 and tokens[0] == "gbe" else tokens[0]
    return SUBJECT_PREFIX + domain


def make_dead_letter(
    subject: str, stream: str, seq: int, reason: str, headers: dict[str, str], payload: bytes
) -> DeadLetter:
    """A dead letter of the given message."""
    return DeadLetter(subject, stream, seq, reason, headers, base64.b64encode(payload).decode())
