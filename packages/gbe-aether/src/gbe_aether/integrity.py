"""The Loom integrity recorder: a SHA-256 chain and Merkle roots over P-blocks and I-blocks (section 15.3).

It is computed when it is asked for, from a result; a session doesn't need it.
"""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence

import msgspec

from gbe_aether.canonical import ascii_text, plain
from gbe_aether.result import SessionRunResult


class IntegrityLinkV1(msgspec.Struct, frozen=True):
    """A link of the chain.

    Attributes:
        kind: `P` or `I`.
        tick: Of which tick.
        hash: SHA-256 of the block's record, with `prev_hash` and, of an I-block, `merkle_root` in it.
        prev_hash: The hash of the link before, P or I; empty for the first.
        merkle_root: Of an I-block: over the hashes of the last W P-blocks.
    """

    kind: str
    tick: int
    hash: str
    prev_hash: str
    merkle_root: str | None = None


def integrity_links(result: SessionRunResult) -> Iterator[IntegrityLinkV1]:
    """The links of a session in their order; a tick's I-block follows its P-block."""
    ticks = result.tick_result
    recent: deque[str] = deque(maxlen=result.config.profile.I_block_spacing_W)
    blocks = iter(ticks.i_blocks)
    previous = ""
    for block in ticks.p_blocks:
        link = _link("P", block.tick, {**plain(block), "prev_hash": previous}, previous)
        yield link
        previous = link.hash
        recent.append(previous)
        if block.tick % result.config.profile.I_block_spacing_W == 0:
            root = merkle_root(list(recent))
            record = {**plain(next(blocks)), "merkle_root": root, "prev_hash": previous}
            link = _link("I", block.tick, record, previous, root)
            yield link
            previous = link.hash


def merkle_root(hashes: Sequence[str]) -> str:
    """The root over hashes in hexadecimal.

    Pairs are hashed as text, an odd one with itself. Of no hashes it is the SHA-256 of nothing.
    """
    level = list(hashes)
    if not level:
        return hashlib.sha256(b"").hexdigest()
    while len(level) > 1:
        if len(level) % 2:
            level.append(level[-1])
        level = [
            hashlib.sha256((left + right).encode()).hexdigest()
            for left, right in zip(level[::2], level[1::2], strict=True)
        ]
    return level[0]


def _link(kind: str, tick: int, record: dict[str, object], previous: str, root: str | None = None) -> IntegrityLinkV1:
    return IntegrityLinkV1(kind, tick, hashlib.sha256(ascii_text(record).encode()).hexdigest(), previous, root)
