"""All schemas of `docs/protocol/`: those of the jobs domain, and the messages that other packages define.

`python -m tools.protocol_schemas` writes them; `tests/docs/test_protocol.py` holds that they are current.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from gbe_jobs_domain import schema
from gbe_nexus.deadletter import DeadLetter
from gbe_runtime.lifecycle_payloads import LifecyclePayload

PROTOCOL: Final = Path(__file__).resolve().parent.parent / "docs" / "protocol"

ELSEWHERE: Final[dict[str, tuple[type[msgspec.Struct], str]]] = {
    "lifecycle": (LifecyclePayload, "gbe.lifecycle.{role}.{started,stopped,heartbeat,degraded}"),
    "dead-letter": (DeadLetter, "gbe._deadletter.{domain}"),
}
"""As `gbe_jobs_domain.schema.PAYLOADS`; that package imports nothing of ours, so it can't have these."""


def rendered() -> dict[str, str]:
    """File name to text, of all schemas."""
    others = {
        f"{name}.json": schema.text_of(schema.payload_schema(name, struct, subject))
        for name, (struct, subject) in ELSEWHERE.items()
    }
    return schema.rendered() | others


def main() -> None:
    """Write them."""
    for name, text in rendered().items():
        (PROTOCOL / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
