"""The result of a session: every record of it, made when it is read."""

import time
from binascii import hexlify
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

from gbe_aether.canonical import json_bytes, text_json
from gbe_aether.codex import Codex, Occurrences
from gbe_aether.gate import Envelopes
from gbe_aether.governance import Decisions, GateCheck, GovernanceConfigV1
from gbe_aether.history import History
from gbe_aether.lazily import LazySequence
from gbe_aether.metrics import MetricsSnapshotV1
from gbe_aether.records import (
    APXManifestV1,
    CodexMotifV1,
    CodexProposalV1,
    LoomIBlockV1,
    LoomPBlockV1,
    NAPEnvelopeV1,
    SceneFrameV1,
    ULedgerCheckpointV1,
    ULedgerEntryV1,
    UMXTickLedgerV1,
)
from gbe_aether.session_config import SessionConfigV1
from gbe_aether.spool import Column, Spool
from gbe_aether.structured_log import LogView, StructuredLogEntryV1, StructuredLogger
from gbe_aether.uledger import EntryText


class Sealing:
    """What follows the last tick: gate decisions, Codex, the U-ledger (specification, section 9, steps 5 to 8).

    It is work for each tick, done in pieces: `work` yields after each.
    """

    def __init__(
        self,
        history: History,
        manifests: Mapping[str, APXManifestV1],
        occurrences: Occurrences,
        envelopes: Envelopes,
        spool: Spool,
    ) -> None:
        config = history.config
        self.history = history
        self.manifests = manifests
        self.envelopes = envelopes
        primary = [window for window in config.windows if window.window_id == config.primary_window_id][-1]
        self.primary = manifests[primary.apx_name]
        self.apx_name = primary.apx_name
        self.policy_set_hash = config.governance.policy_set_hash
        self.codex = Codex(history, occurrences) if config.governance.active else None
        self.budget_usage: dict[str, Any] | None = None
        self.sealed = 0
        self.head_hash: str | None = None
        self.done = False
        self._gate = GateCheck(config.governance)
        self._text: EntryText | None = None
        self._entries = Column(spool, width=64)
        self._work: Iterator[None] | None = None
        self._log: Callable[[], None] | None = None
        self._error: Exception | None = None

    def finish(self, logger: StructuredLogger | None = None, until: float | None = None) -> bool:
        """Go on with the work.

        Args:
            logger: Where gate decisions are logged; taken from the first call.
            until: When to stop (`time.monotonic()`); without it the work is done to its end.

        Returns:
            Whether it is done.

        Raises:
            ValueError: an envelope that cannot be, or one that the gate rejects; the same whenever it is called.
            OSError: the temporary file cannot be written.
        """
        if self._work is None:
            self._work = self._steps(logger)
        if self._error is not None:
            raise self._error
        try:
            while not self.done:
                if next(self._work, self) is self:
                    self.done = True
                elif until is not None and time.monotonic() >= until:
                    break
        except Exception as error:
            # What could not be sealed once must not look sealed the next time.
            self._error = error
            raise
        return self.done

    def mute(self) -> None:
        """Log nothing any more: the session's log has ended."""
        self._log = None

    def _steps(self, logger: StructuredLogger | None) -> Iterator[None]:
        config, history = self.history.config, self.history
        ticks = history.ticks
        if not ticks:
            return
        # A layer or a mode that does not exist shows here.
        self.envelopes.data(1, self.primary.manifest_check, 0)
        rejected = False
        if config.governance.active:
            rejected = self._gate.status(self._gate.reasons(self.envelopes.data_layer, 1)) == "REJECTED"
            self._log = (
                logger.series("gate_governance_decision", self._decision_entry, self._decision_lines)
                if logger
                else None
            )
            for tick in range(ticks):
                if self._log is None:
                    break
                self._log()
                if tick % 64 == 63:
                    yield
        if self.codex is not None:
            for _ in self.codex.learn():
                yield
            decisions = Decisions(config.governance, config.primary_window_id, len(config.topology.edges))
            for number, _ in enumerate(self.codex.propose(decisions)):
                if number % 64 == 63:
                    yield
            if self.codex.motifs:
                self.budget_usage = decisions.usage()
        if rejected:
            raise ValueError("ledgers, p_blocks, and envelopes must align one-to-one")
        yield from self._seal()

    def _seal(self) -> Iterator[None]:
        history = self.history
        self._text = text = self._entry_text()
        data = self.envelopes.data_text(self.primary.manifest_check)
        queue, previous, before = history.queue, None, history.chain(0)
        for tick, (chain, umx, loom) in enumerate(history.seals(), 1):
            nap = sha256(data.write(tick, before, queue.at(tick) if queue else ())).digest()
            entry = sha256(text.write(tick, chain, umx, loom, hexlify(nap), previous)).digest()
            self._entries.append(nap + entry)
            previous, before = hexlify(entry), chain
            self.sealed = tick
            if tick % 32 == 0:
                yield
        self.head_hash = None if previous is None else previous.decode()

    def _entry_text(self) -> EntryText:
        config = self.history.config
        meta = {} if self.budget_usage is None else {"governance_budget": self.budget_usage}
        return EntryText(
            config.gid,
            config.run_id,
            config.primary_window_id,
            self.primary,
            meta,
            self.policy_set_hash,
            config.topology.version,
        )

    # --- records ---------------------------------------------------------------------------------

    def entry_hashes(self, tick: int) -> tuple[str, str]:
        """The hashes of a tick's DATA envelope and U-ledger entry."""
        both = self._entries[tick - 1].hex()
        return both[:64], both[64:]

    def entry(self, tick: int) -> ULedgerEntryV1:
        """The U-ledger entry of a tick."""
        assert self._text is not None
        umx, loom = self.history.hashes(tick)
        previous = self.entry_hashes(tick - 1)[1] if tick > 1 else None
        return self._text.record(tick, self.history.chain(tick), umx, loom, self.entry_hashes(tick)[0], previous)

    def tick_texts(self) -> Iterator[tuple[bytes, bytes]]:
        """The canonical text of the DATA envelope and of the U-ledger entry of each tick, once it is sealed."""
        history, text = self.history, self._text
        if text is None:
            return
        data = self.envelopes.data_text(self.primary.manifest_check)
        previous, before = None, history.chain(0)
        for tick, ((chain, umx, loom), both) in enumerate(
            zip(history.seals(), self._entries.iterate(), strict=True), 1
        ):
            hashes = hexlify(both)
            envelope = data.write(tick, before, history.queue.at(tick))
            yield envelope, text.write(tick, chain, umx, loom, hashes[:64], previous)
            previous, before = hashes[64:], chain

    def checkpoint(self) -> ULedgerCheckpointV1 | None:
        """The end of the chain; there is none before it is sealed, or without ticks."""
        config = self.history.config
        if not self.done or not self.sealed or self._text is None or self.head_hash is None:
            return None
        return ULedgerCheckpointV1(
            end_tick=self.sealed,
            entry_count=self.sealed,
            gid=config.gid,
            head_hash=self.head_hash,
            manifest_hash=self._text.manifest_hash,
            policy_set_hash=self.policy_set_hash,
            run_id=config.run_id,
            start_tick=1,
            window_id=config.primary_window_id,
        )

    def data(self, tick: int) -> NAPEnvelopeV1:
        """The DATA envelope of a tick."""
        return self.envelopes.data(
            tick, self.primary.manifest_check, self.history.chain(tick - 1), self.history.inputs(tick)
        )

    def decision_meta(self, tick: int) -> dict[str, Any]:
        """The gate's decision on the DATA envelope of a tick (section 6.3)."""
        reasons = self._gate.reasons(self.envelopes.data_layer, tick)
        return {
            "event": "GATE_GOVERNANCE_DECISION",
            "envelope_ref": f"nap_{tick}_{tick}",
            "tick": tick,
            "seq": tick,
            "status": self._gate.status(reasons),
            "reasons": reasons,
            "policy_set_hash": self.policy_set_hash,
            "window_id": self.history.config.primary_window_id,
        }

    def decision(self, tick: int) -> NAPEnvelopeV1:
        """The GOV envelope of the gate's decision on a tick."""
        return self.envelopes.governance(
            tick,
            self.history.ticks + tick,
            self.primary.manifest_check,
            self.history.chain(tick - 1),
            self.decision_meta(tick),
        )

    def _decision_entry(self, index: int, ts: str) -> StructuredLogEntryV1:
        governance = self.history.config.governance
        return StructuredLogEntryV1(
            "gate_governance_decision",
            governance.gid or "",
            governance.run_id or "N/A",
            ts,
            payload=self.decision_meta(index + 1),
        )

    def _decision_lines(self, start: int, stamps: Iterator[bytes]) -> Iterator[bytes]:
        config = self.history.config
        governance = config.governance
        status = self._gate.status(self._gate.reasons(self.envelopes.data_layer, 1))
        gid, run_id, window = map(
            text_json, (governance.gid or "", governance.run_id or "N/A", config.primary_window_id)
        )
        head = f'{{"event":"gate_governance_decision","gid":{gid},"payload":{{"envelope_ref":"nap_'.encode()
        middle = f'","event":"GATE_GOVERNANCE_DECISION","policy_set_hash":"{self.policy_set_hash}","reasons":'.encode()
        end = f',"window_id":{window}}},"run_id":{run_id},"ts":"'.encode()
        for tick, stamp in enumerate(stamps, start + 1):
            reasons = json_bytes(self._gate.reasons(self.envelopes.data_layer, tick))
            yield b'%b%d_%d%b%b,"seq":%d,"status":"%b","tick":%d%b%b"}' % (
                head, tick, tick, middle, reasons, tick, status.encode(), tick, end, stamp,
            )  # fmt: skip

    def session_events(self) -> list[NAPEnvelopeV1]:
        """The GOV envelopes on the session as a whole (section 6.4)."""
        config, ticks = self.history.config, self.history.ticks
        governance = config.governance
        if self.codex is None or not ticks:
            return []
        loaded = {
            "event": "POLICY_SET_LOADED",
            "policy_set_hash": self.policy_set_hash,
            "policy_ids": sorted(policy.policy_id for policy in governance.policies),
            "governance_mode": governance.governance_mode,
            "codex_action_mode": governance.codex_action_mode,
        }
        events = [self.envelopes.governance(1, 1, 0, self.history.chain(0), loaded)]
        usage = self.budget_usage
        if usage is None:
            return events
        common = {
            "policy_set_hash": self.policy_set_hash,
            "window_id": config.primary_window_id,
            "governance_mode": governance.governance_mode,
        }
        summary = {"event": "GOVERNANCE_DECISION_SUMMARY", **common, **usage}
        chain = self.history.chain(ticks)
        events.append(self.envelopes.governance(ticks, ticks, 0, chain, summary))
        exhausted = [row for row in usage["caps"] if row["exhausted"]]
        if exhausted:
            meta = {"event": "BUDGET_EXHAUSTION", **common, "exhausted_caps": exhausted}
            events.append(self.envelopes.governance(ticks, ticks + 1, 0, chain, meta))
        return events


class GF01RunResult:
    """The records of a session's ticks and what was concluded from them.

    Sequences are lazy: an item is made when it is read, from what the session kept. Whatever rests
    on the whole run (`u_ledger_entries` and its checkpoint, `codex_*`, `governance_budget_usage`, the
    session's GOV envelopes) is sealed on first use where a cancelled session left that open.
    """

    def __init__(self, history: History, sealing: Sealing) -> None:
        self.history = history
        self.sealing = sealing
        self.run_id = history.config.run_id

    # --- ticks -----------------------------------------------------------------------------------

    @property
    def ledgers(self) -> Sequence[UMXTickLedgerV1]:
        """The tick ledgers."""
        return self._by_tick(self.history.ledger)

    @property
    def p_blocks(self) -> Sequence[LoomPBlockV1]:
        """The P-blocks."""
        return self._by_tick(self.history.p_block)

    @property
    def i_block_ticks(self) -> range:
        """The ticks that have an I-block."""
        spacing = self.history.config.profile.I_block_spacing_W
        return range(spacing, self.history.ticks + 1, spacing)

    @property
    def i_blocks(self) -> Sequence[LoomIBlockV1]:
        """The I-blocks."""
        ticks = self.i_block_ticks
        return LazySequence(lambda: len(ticks), lambda index: self.history.i_block(ticks[index]))

    @property
    def manifests(self) -> Mapping[str, APXManifestV1]:
        """The manifests by apx_name, in the order of their first appearance."""
        return self.sealing.manifests

    @property
    def apxi_views(self) -> Mapping[str, Any]:
        """Always empty: nothing in a run config asks for APXi views."""
        return {}

    @property
    def primary_manifest(self) -> APXManifestV1:
        """The manifest that the primary window's apx_name stands for."""
        return self.sealing.primary

    @property
    def scenes(self) -> Sequence[SceneFrameV1]:
        """The scene frames."""
        sealing = self.sealing
        return self._by_tick(lambda tick: self.history.scene(tick, sealing.primary.manifest_check, sealing.apx_name))

    # --- envelopes -------------------------------------------------------------------------------

    @property
    def envelopes(self) -> Sequence[NAPEnvelopeV1]:
        """The DATA envelopes."""
        return self._by_tick(self.sealing.data)

    @property
    def ingress_ticks(self) -> list[int]:
        """The ticks with external input."""
        return self.history.queue.ticks(self.history.ticks)

    @property
    def ingress_envelopes(self) -> Sequence[NAPEnvelopeV1]:
        """The INGRESS envelopes."""
        ticks = self.ingress_ticks
        make = self.sealing.envelopes.ingress
        return LazySequence(lambda: len(ticks), lambda index: self.history.ingress(ticks[index], make))

    @property
    def egress_envelopes(self) -> Sequence[NAPEnvelopeV1]:
        """The EGRESS envelope; none without ticks."""
        ticks = self.history.ticks
        if not ticks:
            return []
        check = self.primary_manifest.manifest_check
        return [self.sealing.envelopes.egress(ticks, ticks + 2, check, self.history.chain(ticks))]

    @property
    def gate_decisions(self) -> Sequence[NAPEnvelopeV1]:
        """The GOV envelopes of the gate's decisions, one for each tick unless governance is off."""
        active = self.history.config.governance.active
        return LazySequence(lambda: self.history.ticks if active else 0, lambda index: self.sealing.decision(index + 1))

    @property
    def governance_envelopes(self) -> Sequence[NAPEnvelopeV1]:
        """All GOV envelopes in the order of their emission."""
        self.seal()
        decisions, events = self.gate_decisions, self.sealing.session_events()
        first = len(decisions)
        return LazySequence(
            lambda: first + len(events),
            lambda index: decisions[index] if index < first else events[index - first],
        )

    # --- the session as a whole --------------------------------------------------------------------

    def seal(self, until: float | None = None) -> bool:
        """Complete what rests on the whole run.

        Args:
            until: When to stop (`time.monotonic()`); call again to go on.

        Returns:
            Whether it is complete. After a completed session it always is.
        """
        return self.sealing.finish(until=until)

    @property
    def u_ledger_entries(self) -> Sequence[ULedgerEntryV1]:
        """The U-ledger."""
        self.seal()
        return self._by_tick(self.sealing.entry)

    @property
    def u_ledger_checkpoint(self) -> ULedgerCheckpointV1 | None:
        """The end of the U-ledger's chain; none without ticks."""
        self.seal()
        return self.sealing.checkpoint()

    @property
    def last_hash(self) -> str | None:
        """The hash of the last U-ledger entry."""
        self.seal()
        return self.sealing.head_hash

    @property
    def governance(self) -> GovernanceConfigV1:
        """The governance in force."""
        return self.history.config.governance

    @property
    def governance_budget_usage(self) -> dict[str, Any] | None:
        """How much of the budgets was used; nothing without proposals."""
        self.seal()
        return self.sealing.budget_usage

    @property
    def codex_motifs(self) -> Sequence[CodexMotifV1]:
        """The motifs."""
        self.seal()
        codex = self.sealing.codex
        return [] if codex is None else LazySequence(lambda: codex.motifs, codex.motif)

    @property
    def codex_proposals(self) -> Sequence[CodexProposalV1]:
        """The proposals with the decisions on them."""
        self.seal()
        codex = self.sealing.codex
        return [] if codex is None else LazySequence(lambda: codex.proposals, codex.proposal)

    @property
    def codex_actions(self) -> Sequence[CodexProposalV1]:
        """The accepted proposals, unless the mode is DRY_RUN. Nothing is ever applied to the topology."""
        return [] if self.governance.governance_mode == "DRY_RUN" else self._accepted()

    @property
    def codex_hypothetical_actions(self) -> Sequence[CodexProposalV1]:
        """The accepted proposals in mode DRY_RUN."""
        return self._accepted() if self.governance.governance_mode == "DRY_RUN" else []

    def governance_summary(self) -> dict[str, Any]:
        """Mode, counts and budget usage, for display (section 6.4)."""
        self.seal()
        codex = self.sealing.codex
        counts: dict[str, int] = {}
        for verdict in codex.verdicts if codex else ():
            counts[verdict.status] = counts.get(verdict.status, 0) + 1
        return {
            "governance_mode": self.governance.governance_mode,
            "policy_set_hash": self.sealing.policy_set_hash,
            "proposals_seen": codex.proposals if codex else 0,
            "evaluated_status_counts": counts,
            "actions_applied": len(self.codex_actions),
            "actions_hypothetical": len(self.codex_hypothetical_actions),
            "budget_usage": self.governance_budget_usage or {},
        }

    def _accepted(self) -> Sequence[CodexProposalV1]:
        self.seal()
        codex = self.sealing.codex
        if codex is None:
            return []
        indices = codex.accepted()
        return LazySequence(lambda: len(indices), lambda index: codex.proposal(indices[index]))

    def _by_tick(self, build: Any) -> LazySequence[Any]:
        return LazySequence(lambda: self.history.ticks, lambda index: build(index + 1))


class SessionRunResult:
    """The result of a session.

    Attributes:
        config: What was run.
        status: `completed`, or `cancelled`: then the records are those of the ticks that were done.
        completed_ticks: How many ticks were done.
        tick_result: Their records.
        logs: The log entries kept in memory.
    """

    def __init__(
        self,
        config: SessionConfigV1,
        status: str,
        tick_result: GF01RunResult,
        logs: LogView,
    ) -> None:
        self.config = config
        self.status = status
        self.completed_ticks = tick_result.history.ticks
        self.tick_result = tick_result
        self.logs = logs

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.config.run_id

    @property
    def final_state(self) -> list[int]:
        """The state after the last tick."""
        return self.tick_result.history.post(self.completed_ticks)

    @property
    def lifecycle_envelopes(self) -> Sequence[NAPEnvelopeV1]:
        """The CTRL envelopes: the start, and the end unless there were no ticks."""
        history, ticks = self.tick_result.history, self.completed_ticks
        make = self.tick_result.sealing.envelopes.control
        start = make(1, 1, 0, history.chain(0))
        if not ticks:
            return [start]
        check = self.tick_result.primary_manifest.manifest_check
        return [start, make(ticks, ticks + 1, check, history.chain(ticks))]

    def all_envelopes(self) -> Iterator[NAPEnvelopeV1]:
        """All envelopes in the session's order (section 5.1)."""
        lifecycle = self.lifecycle_envelopes
        yield lifecycle[0]
        yield from self._tick_envelopes()
        yield from lifecycle[1:]
        yield from self.tick_result.egress_envelopes

    def introspection_envelopes(self) -> Iterator[NAPEnvelopeV1]:
        """All envelopes in the order of introspection (section 12)."""
        yield from self.lifecycle_envelopes
        yield from self._tick_envelopes()
        yield from self.tick_result.egress_envelopes

    def envelope_count(self) -> int:
        """How many envelopes there are."""
        result = self.tick_result
        parts = (
            self.lifecycle_envelopes,
            result.ingress_envelopes,
            result.envelopes,
            result.egress_envelopes,
            result.governance_envelopes,
        )
        return sum(map(len, parts))

    @property
    def metrics(self) -> MetricsSnapshotV1 | None:
        """The metrics, where the config asks for them."""
        if not self.config.metrics.enabled:
            return None
        result = self.tick_result
        return MetricsSnapshotV1(
            apx_manifests=len(result.manifests),
            apxi_views=0,
            gid=self.config.gid,
            nap_data=len(result.envelopes),
            nap_egress=len(result.egress_envelopes),
            nap_ingress=len(result.ingress_envelopes),
            nap_total=self.envelope_count(),
            run_id=self.run_id,
            total_ticks=self.completed_ticks,
            uledger_entries=len(result.u_ledger_entries),
            uledger_last_hash=result.last_hash,
            window_count=len(self.config.windows),
        )

    def _tick_envelopes(self) -> Iterator[NAPEnvelopeV1]:
        result = self.tick_result
        decisions, data = result.gate_decisions, result.envelopes
        result.seal()
        events = result.sealing.session_events()
        ingress = dict(zip(result.ingress_ticks, result.ingress_envelopes, strict=True))
        for tick in range(1, self.completed_ticks + 1):
            governance = [decisions[tick - 1]] if decisions else []
            governance += [event for event in events if event.tick == tick]
            yield from sorted(governance, key=lambda envelope: envelope.seq)
            if tick in ingress:
                yield ingress[tick]
            yield data[tick - 1]
