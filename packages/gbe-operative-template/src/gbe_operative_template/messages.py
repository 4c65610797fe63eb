"""What the Operative and the processes that render say to each other. Standard library only.

Each rendering has a socket of its own: the order goes one way, the answer the other, both JSON up to the end of the
stream. Beside them is one control socket with records of one size: kind, number of the rendering, a number.
"""

from __future__ import annotations

import struct
from typing import Final, TypedDict

RECORD: Final = struct.Struct("!cQd")

RENDER: Final = b"R"
"""To the fork server: render what comes from the socket that is attached; within so many seconds."""
CANCEL: Final = b"C"
"""To the fork server: nobody wants it any more."""
READY: Final = b"U"
"""From the fork server: everything is imported."""
ENDED: Final = b"E"
"""From the fork server: the process has ended; its exit code, negative for a signal."""
TIMEOUT: Final = b"T"
"""From the fork server: the process was killed, for its time was over."""


class Order(TypedDict):
    """What to render. `name`: how errors call the template. `directory`: where it lies, if it is a file."""

    template: str
    name: str
    directory: str | None
    root: str | None
    variables: dict[str, object]
    max_bytes: int
    memory: int


class Answer(TypedDict, total=False):
    """`text`, or `error` and what kind of one: `syntax`, or `failed`. `undefined`: the name that is."""

    text: str
    error: str
    kind: str
    undefined: str
