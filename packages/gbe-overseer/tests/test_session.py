"""Whose files a job's paths are."""

from __future__ import annotations

import pytest

from gbe_overseer.session import shares_files
from gbe_runtime import BusSettings


@pytest.mark.parametrize(
    ("url", "shared"),
    [
        ("", True),
        ("nats://localhost:4222", True),
        ("nats://127.0.0.1:4222, nats://[::1]:4223", True),
        ("127.8.9.10:4222", True),
        ("tls://user:secret@localhost", True),
        ("nats://bus:4222", False),
        ("nats://localhost:4222,nats://10.0.0.1:4222", False),
        ("nats://localhost.example.org:4222", False),
        ("nats://[", False),
    ],
)
def test_whether_files_are_shared(url: str, shared: bool) -> None:
    assert shares_files(BusSettings(nats_url=url or None)) is shared
