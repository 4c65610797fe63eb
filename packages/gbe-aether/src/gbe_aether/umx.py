"""UMX: one tick of the graph (specification, section 2), and the canonical text of what it did.

A kernel takes the state before a tick and gives an outcome: the state after it, the fluxes, and the
parts of the tick ledger's and the P-block's canonical text that depend on the state. The text is
made here because hashing it is nearly all of a tick's cost.
"""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from operator import sub
from typing import TYPE_CHECKING, Any

from gbe_aether.canonical import text_json
from gbe_aether.records import EdgeTickV1, UMXTickLedgerV1
from gbe_aether.topology import TopologyProfileV1

if TYPE_CHECKING:
    from gbe_aether.wide import WideKernel

State = list[int]


class Outcome:
    """What a tick did: everything but the tick's number."""

    __slots__ = (
        "_deltas",
        "clamped",
        "du",
        "flux_text",
        "fluxes",
        "hasher",
        "head",
        "post",
        "post_text",
        "pre",
        "pre_text",
        "raw",
        "sum",
        "tail",
    )  # fmt: skip

    def __init__(
        self,
        pre: Any,
        post: Any,
        du: Any,
        raw: Any,
        fluxes: Any,
        total: int,
        clamped: bool,
        pre_text: bytes,
        post_text: bytes,
        head: tuple[bytes | bytearray, ...],
        flux_text: bytes,
    ) -> None:
        self.pre = pre
        self.post = post
        self.du = du
        self.raw = raw
        self.fluxes = fluxes
        self.sum = total
        self.clamped = clamped
        self.pre_text = pre_text
        self.post_text = post_text
        self.head = head
        self.flux_text = flux_text
        self.tail = b',"z_check":%d}' % total
        self.hasher = hashlib.sha256(head[0])
        for part in head[1:]:
            self.hasher.update(part)
        self._deltas: Any = None

    def ledger_text(self, tick: int) -> bytes:
        """Canonical text of the tick ledger."""
        return b"%b%d%b" % (b"".join(self.head), tick, self.tail)

    def ledger_digest(self, tick: int) -> bytes:
        """SHA-256 of the tick ledger. Only what differs from another tick with this outcome is hashed."""
        hasher = self.hasher.copy()
        hasher.update(b"%d%b" % (tick, self.tail))
        return hasher.digest()

    @property
    def at_rest(self) -> bool:
        """Whether the next tick does exactly the same, unless something is added to the state."""
        return self.pre_text == self.post_text

    @property
    def deltas(self) -> Any:
        """What the tick changed, node by node."""
        if self._deltas is None:
            if isinstance(self.post, list):
                self._deltas = list(map(sub, self.post, self.pre))
            else:
                self._deltas = self.post - self.pre
        return self._deltas

    @property
    def flux_sum(self) -> int:
        """The sum of the fluxes' absolute values."""
        if isinstance(self.fluxes, list):
            return sum(map(abs, self.fluxes))
        return int(abs(self.fluxes).sum())


class ExactKernel:
    """Steps with Python's integers: exact whatever their size, and fast on small graphs."""

    def __init__(self, topology: TopologyProfileV1) -> None:
        self._topology = topology
        self._scale = topology.SC
        self._edges = [(e.i - 1, e.j - 1, e.k, topology.cap(e), topology.radius(e)) for e in topology.edges]
        self._ledger_format = ",".join(
            f'{{"cap":{topology.cap(e)},"du":%d,"e_id":{e.e_id},"f_e":%d,"i":{e.i},"j":{e.j},"raw":%d}}'
            for e in topology.edges
        )
        self._flux_format = ",".join(f'{{"e_id":{e.e_id},"f_e":%d}}' for e in topology.edges)
        self._nap_ref = text_json(topology.nap_ref or "")
        self._clamped = '["causal_radius_clamped"]'

    def step(self, pre: Sequence[int], pre_text: bytes | None = None) -> Outcome:
        """The outcome of a tick on a state; `pre_text` is its canonical text, where it is known."""
        scale = self._scale
        post = list(pre)
        clamped = False
        numbers: list[int] = []
        for i, j, k, cap, radius in self._edges:
            du = pre[i] - pre[j]
            flux = -du if du < 0 else du
            if radius and flux > radius:
                flux = radius
                clamped = True
            raw = k * flux // scale
            # A comparison costs half of what a call of `min` does, and this is the innermost loop.
            if raw < flux:  # noqa: PLR1730
                flux = raw
            if cap < flux:  # noqa: PLR1730
                flux = cap
            if du > 0:
                post[i] -= flux
                post[j] += flux
            elif du < 0:
                post[i] += flux
                post[j] -= flux
                flux = -flux
            else:
                flux = 0
            numbers += (du, flux, raw)
        differences, fluxes, raws = numbers[0::3], numbers[1::3], numbers[2::3]
        total = sum(pre)
        if sum(post) != total:
            raise ValueError("a tick must conserve the sum of the state")
        before = ",".join(map(str, pre)) if pre_text is None else pre_text.decode()
        after = ",".join(map(str, post))
        head = (
            f'{{"causal_radius_applied":{"true" if clamped else "false"},'
            f'"edges":[{self._ledger_format % tuple(numbers)}],"epsilon_applied":false,"nap_ref":{self._nap_ref},'
            f'"policy_notes":{self._clamped if clamped else "[]"},"post_u":[{after}],"pre_u":[{before}],'
            f'"sum_post_u":{total},"sum_pre_u":{total},"tick":'
        ).encode()
        flux_text = (self._flux_format % tuple(fluxes)).encode()
        return Outcome(
            pre, post, differences, raws, fluxes, total, clamped, before.encode(), after.encode(), (head,), flux_text
        )


WIDE_FROM = 256
"""Nodes and edges from which on arrays are worth their overhead."""


REMEMBERED = 3 * 1024 * 1024
"""Bytes of ledger text, and `OBJECTS` for each, of all the outcomes together that are remembered of a small graph; an
outcome takes up to three times as much. Numbers may have thousands of digits."""

OBJECTS = 1024
"""Bytes that an outcome takes whatever its numbers."""


class Stepper:
    """Steps a topology with the kernel that fits the state: this is the one place that chooses.

    Args:
        topology: The graph.
        kernel: `exact` or `wide` to use the one or, wherever it can, the other; by size if not said.
    """

    def __init__(self, topology: TopologyProfileV1, kernel: str | None = None) -> None:
        self._topology = topology
        self._exact: ExactKernel | None = None
        self._wide: WideKernel | None = None
        # What a tick does follows from the state alone, and a small graph that never rests soon goes in circles.
        self._known: dict[bytes, Outcome] = {}
        size = topology.N + len(topology.edges)
        if kernel == "wide" or (kernel is None and size >= WIDE_FROM):
            # NumPy is loaded when it is needed.
            from gbe_aether import wide

            with contextlib.suppress(OverflowError):
                self._wide = wide.WideKernel(topology)
        self._remembers = self._wide is None and size < WIDE_FROM
        self._room = REMEMBERED

    def known(self, pre_text: bytes) -> Outcome | None:
        """The outcome of a tick on the state of this text, if it is remembered."""
        return self._known.get(pre_text)

    def step(self, pre: Any, pre_text: bytes | None) -> Outcome:
        """The outcome of a tick on a state; `pre_text` is its canonical text, where it is known."""
        if self._remembers and pre_text is not None:
            outcome = self._known.get(pre_text)
            if outcome is None:
                outcome = self._step(pre, pre_text)
                size = OBJECTS + len(outcome.head[0])
                if size > self._room:
                    self._known.clear()
                    self._room = REMEMBERED
                self._known[pre_text] = outcome
                self._room -= size
            return outcome
        return self._step(pre, pre_text)

    def _step(self, pre: Any, pre_text: bytes | None) -> Outcome:
        if self._wide is not None:
            admitted = self._wide.admit(pre)
            if admitted is not None:
                return self._wide.step(admitted, pre_text)
            if not isinstance(pre, list):
                pre = pre.tolist()
        if self._exact is None:
            self._exact = ExactKernel(self._topology)
        return self._exact.step(pre, pre_text)


def numbers(text: bytes) -> State:
    """The state whose canonical text this is."""
    if len(text) < 512:
        return list(map(int, text.split(b",")))
    state: State = json.loads(f"[{text.decode()}]")
    return state


def ledger_record(topology: TopologyProfileV1, outcome: Outcome, tick: int) -> UMXTickLedgerV1:
    """The tick ledger as a record."""
    edges = [
        EdgeTickV1(topology.cap(e), int(du), e.e_id, int(f_e), e.i, e.j, int(raw))
        for e, du, raw, f_e in zip(topology.edges, outcome.du, outcome.raw, outcome.fluxes, strict=True)
    ]
    return UMXTickLedgerV1(
        causal_radius_applied=outcome.clamped,
        edges=edges,
        epsilon_applied=False,
        nap_ref=topology.nap_ref or "",
        policy_notes=["causal_radius_clamped"] if outcome.clamped else [],
        post_u=[int(each) for each in outcome.post],
        pre_u=[int(each) for each in outcome.pre],
        sum_post_u=outcome.sum,
        sum_pre_u=outcome.sum,
        tick=tick,
        z_check=outcome.sum,
    )
