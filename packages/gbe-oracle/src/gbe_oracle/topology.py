"""The streams of an ecumene, made where they are missing."""

from __future__ import annotations

import logging
from dataclasses import replace

from gbe_jobs_domain.streams import Retention, StreamTopology, streams
from gbe_nexus import NotFound, StreamConflict, StreamFull, Transport

log = logging.getLogger("gbe.oracle")

SMALLEST = 8 << 20
"""Bytes of the smallest limit that a stream is made with by itself."""


async def ensure_streams(transport: Transport, retention: Retention) -> None:
    """Make the streams that are missing; those that exist keep the size limits that somebody gave them.

    A server sets the bytes of all limits aside when streams are made. Where it has not got so many (a small disk),
    the streams are made smaller, the first ones less than the others.

    Raises `StreamConflict`, and `StreamFull` where there is no room at all.
    """
    share = 1
    for spec in streams(retention):
        share = await _ensure(transport, spec, share)


async def _ensure(transport: Transport, wanted: StreamTopology, share: int) -> int:
    """`share`: of the wanted bytes the n-th part, as it turned out for an earlier stream. Returns that for the next."""
    shrunk = False
    while True:
        try:
            found = await transport.stream_state(wanted.name)
        except NotFound:
            spec = _smaller(wanted, share)
        else:
            spec = replace(wanted, max_bytes=found.max_bytes, max_messages=found.max_messages)
        try:
            await transport.ensure_stream(spec)
        except StreamFull:
            if spec.max_bytes <= SMALLEST:
                raise
            share *= 4
            shrunk = True
        except StreamConflict:
            # Another Oracle may have made it a moment ago, with another limit.
            state = await transport.stream_state(wanted.name)
            if (state.max_bytes, state.max_messages) == (spec.max_bytes, spec.max_messages):
                raise
        else:
            if spec.max_bytes != wanted.max_bytes:
                log.warning(
                    "stream %s holds at most %d MiB, not %d", wanted.name, spec.max_bytes >> 20, wanted.max_bytes >> 20
                )
            return share * 4 if shrunk else share  # the others are to fit as well


def _smaller(spec: StreamTopology, share: int) -> StreamTopology:
    if share == 1 or not spec.max_bytes:
        return spec
    return replace(spec, max_bytes=min(spec.max_bytes, max(SMALLEST, spec.max_bytes // share)))
