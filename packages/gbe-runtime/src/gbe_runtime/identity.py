"""A name for one process of a role that no other process ever has."""

from __future__ import annotations

import os
import re
import socket


def host_name() -> str:
    """This host's name, fit to be one token of a subject or a key: no dots, at most 32 characters."""
    first = socket.gethostname().partition(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]", "-", first)[:32] or "host"


def new_identity(role: str) -> str:
    """`{role}-{host}-{pid}-{random}`: fit to be one token of a subject or a key."""
    return f"{role}-{host_name()}-{os.getpid()}-{os.urandom(4).hex()}"
