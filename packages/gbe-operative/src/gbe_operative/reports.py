"""Getting terminals stored, however long the bus is away."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence

from gbe_nexus import NexusError, Outgoing, PubAck, Transport
from gbe_runtime.backoff import retry_delay

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0


Results = list[PubAck | NexusError]


async def deliver(transport: Transport, messages: Sequence[Outgoing], results: Results | None = None) -> Results:
    """Publish all; try again for as long as the answer is silence or a full stream. What is left are refusals.

    The message ids make it idempotent. `results`: of a first try that was made already.
    """
    if results is None:
        results = await transport.publish_many(messages)
    tries = 0
    while open_ones := [place for place, result in enumerate(results) if _worth_another(result)]:
        tries += 1
        if tries in (1, 10, 100):
            log.warning("%d reports are not stored yet: %s", len(open_ones), results[open_ones[0]])
        await asyncio.sleep(FIRST_PAUSE + retry_delay(tries, FIRST_PAUSE, 2.0, LONGEST_PAUSE, random.random))
        again = await transport.publish_many([messages[place] for place in open_ones])
        for place, result in zip(open_ones, again, strict=True):
            results[place] = result
    return results


def _worth_another(result: PubAck | NexusError) -> bool:
    return isinstance(result, NexusError) and result.retryable
