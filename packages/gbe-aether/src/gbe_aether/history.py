"""What happened in a session, tick by tick, in the least form from which every record follows.

Kept of a tick are the state after it, its s_t and C_t, and the hashes of its ledger and P-block. All
other records follow from these, the topology and the inputs: they are made when they are read.
"""

from binascii import hexlify
from collections.abc import Callable, Iterator, Sequence

from gbe_aether.loom import PBlockText
from gbe_aether.pfna import IntegerizationV1, PFNAQueue, payload_ref
from gbe_aether.records import (
    EdgeFluxV1,
    LoomIBlockV1,
    LoomPBlockV1,
    NAPEnvelopeV1,
    SceneFrameV1,
    UMXTickLedgerV1,
)
from gbe_aether.session_config import SessionConfigV1
from gbe_aether.spool import Column, Spool
from gbe_aether.umx import Outcome, Stepper, ledger_record, numbers


class History:
    """The ticks of a session so far. Ticks count from 1."""

    def __init__(self, config: SessionConfigV1, spool: Spool, stepper: Stepper) -> None:
        self.config = config
        self.queue = PFNAQueue(config.pfna_inputs)
        self.p_block_text = PBlockText(config.gid, config.topology.version)
        self._stepper = stepper
        self._states = Column(spool)
        self._chain = Column(spool)
        self._hashes = Column(spool, width=64, digested=True)
        self.initial = list(config.initial_state)
        before = self.queue.vector(0)
        if before is not None:
            self.initial = [a + b for a, b in zip(self.initial, before, strict=True)]
        self._read: tuple[int, Outcome] | None = None

    @property
    def ticks(self) -> int:
        """How many ticks are recorded."""
        return len(self._hashes)

    def record(self, outcome: Outcome, s_t: int, chain: int, umx_digest: bytes, loom_digest: bytes) -> None:
        """Add the next tick. Raises `OSError` when the disk is full."""
        self._states.append(outcome.post_text)
        self._chain.append(b"%d %d" % (chain, s_t))
        self._hashes.append(umx_digest + loom_digest)

    # --- what was recorded -----------------------------------------------------------------------

    def chain(self, tick: int) -> int:
        """C_t of a tick; of tick 0 it is C0."""
        return int(self._chain[tick - 1].split(b" ")[0]) if tick else self.config.profile.C0

    def chain_texts(self, start: int) -> Iterator[tuple[bytes, bytes]]:
        """The text of C_(t-1) and C_t of each tick t from `start` + 1 on."""
        before = b"%d" % self.chain(start)
        for frame in self._chain.iterate(start):
            after = frame.split(b" ", 1)[0]
            yield before, after
            before = after

    def digests(self, ticks: int) -> Iterator[tuple[int, str]]:
        """SHA-256 over the hashes of the ledgers and P-blocks of some thousand ticks each, up to `ticks`, with the last
        tick that each covers."""
        for tick, digest in self._hashes.digests(ticks):
            yield tick, digest.hex()

    def hash_bytes(self, start: int) -> Iterator[bytes]:
        """The hashes of ledger and P-block of each tick from `start` + 1 on, 64 bytes: `digests` are of them."""
        return self._hashes.iterate(start)

    def s_t(self, tick: int) -> int:
        """s_t of a tick."""
        return int(self._chain[tick - 1].split(b" ")[1])

    def hashes(self, tick: int) -> tuple[str, str]:
        """The hashes of a tick's ledger and P-block."""
        both = self._hashes[tick - 1].hex()
        return both[:64], both[64:]

    def seals(self) -> Iterator[tuple[int, bytes, bytes]]:
        """C_t of each tick, and the hashes of its ledger and its P-block as text."""
        for chain, both in zip(self._chain.iterate(), self._hashes.iterate(), strict=True):
            text = hexlify(both)
            yield int(chain.split(b" ", 1)[0]), text[:64], text[64:]

    def post(self, tick: int) -> list[int]:
        """The state after a tick; of tick 0, the state that tick 1 starts from but for its own input."""
        return numbers(self._states[tick - 1]) if tick else list(self.initial)

    def inputs(self, tick: int) -> Sequence[IntegerizationV1]:
        """The external input of a tick."""
        return self.queue.at(tick)

    # --- what follows from it --------------------------------------------------------------------

    def pre(self, tick: int) -> list[int]:
        """The state before a tick, its external input included."""
        state = self.post(tick - 1)
        vector = self.queue.vector(tick)
        return state if vector is None else [a + b for a, b in zip(state, vector, strict=True)]

    def differences(self, tick: int, start: int, stop: int) -> list[int]:
        """The tick's differences over the edges with the indices `start` to `stop`, without the rest of the tick."""
        state = self.pre(tick)
        return [state[edge.i - 1] - state[edge.j - 1] for edge in self.config.topology.edges[start:stop]]

    def outcome(self, tick: int) -> Outcome:
        """The tick once more."""
        read = self._read
        if read is not None and read[0] == tick:
            return read[1]
        if read is not None and read[0] == tick - 1 and read[1].at_rest and not self.queue.refs(tick):
            outcome = read[1]
        else:
            outcome = self._stepper.step(self.pre(tick), None)
        self._read = tick, outcome
        return outcome

    def ledger(self, tick: int) -> UMXTickLedgerV1:
        """The tick ledger."""
        return ledger_record(self.config.topology, self.outcome(tick), tick)

    def ledger_text(self, tick: int) -> bytes:
        """The tick ledger's canonical text."""
        return self.outcome(tick).ledger_text(tick)

    def p_block(self, tick: int) -> LoomPBlockV1:
        """The P-block."""
        config = self.config
        fluxes = [EdgeFluxV1(number, int(f_e)) for number, f_e in enumerate(self.outcome(tick).fluxes, 1)]
        return LoomPBlockV1(self.chain(tick), fluxes, config.gid, self.s_t(tick), tick, tick, config.topology.version)

    def loom_text(self, tick: int) -> bytes:
        """The P-block's canonical text."""
        return self.p_block_text.write(tick, self.s_t(tick), self.chain(tick), self.outcome(tick).flux_text)

    def i_block(self, tick: int) -> LoomIBlockV1:
        """The I-block of a tick that has one."""
        config = self.config
        return LoomIBlockV1(
            self.chain(tick),
            config.profile.I_block_spacing_W,
            config.gid,
            self.post(tick),
            config.profile.name,
            tick,
            config.topology.snapshot(),
            config.topology.version,
        )

    def ingress(self, tick: int, make: Callable[[int, int, int], NAPEnvelopeV1]) -> NAPEnvelopeV1:
        """The INGRESS envelope of a tick with external input."""
        return make(tick, payload_ref(self.inputs(tick), self.config.profile.modulus_M), self.chain(tick - 1))

    def scene(self, tick: int, manifest_check: int, apx_name: str) -> SceneFrameV1:
        """The scene frame."""
        config = self.config
        refs = self.queue.refs(tick)
        meta: dict[str, object] = {"p_block_ref": f"loom_p_block_{tick}", "manifest_ref": apx_name}
        if refs:
            meta["pfna_refs"] = refs
            meta["pfna_integerization"] = [{"pfna_id": each, "values": [], "audit": []} for each in refs]
        return SceneFrameV1(
            C_prev=self.chain(tick - 1),
            C_t=self.chain(tick),
            gid=config.gid,
            ledger_ref=f"umx_ledger_{tick}",
            manifest_check=manifest_check,
            meta=meta,
            nap_envelope_ref=None,
            nid=config.nid,
            pfna_refs=refs,
            post_u=self.post(tick),
            pre_u=self.pre(tick),
            run_id=config.run_id,
            tick=tick,
            window_id=config.primary_window_id,
        )
