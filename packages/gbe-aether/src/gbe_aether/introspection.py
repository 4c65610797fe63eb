"""Introspection: a read-only index over a result (specification, section 12)."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from gbe_aether.errors import NotFoundError
from gbe_aether.lazily import ByTick
from gbe_aether.records import (
    APXManifestV1,
    CodexMotifV1,
    CodexProposalV1,
    LoomIBlockV1,
    LoomPBlockV1,
    NAPEnvelopeV1,
    ULedgerEntryV1,
    UMXTickLedgerV1,
)
from gbe_aether.result import SessionRunResult

_K = TypeVar("_K")
_V = TypeVar("_V")


class IntrospectionViewV1:
    """The records of a result by tick and by window. They are made when they are read."""

    def __init__(self, result: SessionRunResult) -> None:
        ticks = result.tick_result
        every = range(1, result.completed_ticks + 1)
        self._result = result
        self.gid = result.config.gid
        self.run_id = result.run_id
        self.total_ticks = result.completed_ticks
        self.ledgers_by_tick: Mapping[int, UMXTickLedgerV1] = ByTick(every, ticks.ledgers)
        self.p_blocks_by_tick: Mapping[int, LoomPBlockV1] = ByTick(every, ticks.p_blocks)
        self.i_blocks_by_tick: Mapping[int, LoomIBlockV1] = ByTick(ticks.i_block_ticks, ticks.i_blocks)
        self.uledger_by_tick: Mapping[int, ULedgerEntryV1] = ByTick(every, ticks.u_ledger_entries)
        # Of windows with one id the later stands for both; of those with one apx_name it has the manifest.
        windows = {window.window_id: window for window in result.config.windows}
        window_of = {window.apx_name: window.window_id for window in windows.values()}
        self.manifests_by_window: Mapping[str, APXManifestV1] = {
            window_of[name]: manifest for name, manifest in ticks.manifests.items()
        }
        self.window_ids = sorted(self.manifests_by_window)
        self.apxi_views_by_window: Mapping[str, Any] = {}
        self.codex_motifs: Sequence[CodexMotifV1] = ticks.codex_motifs
        self.codex_proposals: Sequence[CodexProposalV1] = ticks.codex_proposals

    @property
    def envelope_count(self) -> int:
        """How many envelopes there are."""
        return self._result.envelope_count()

    @property
    def envelopes(self) -> list[NAPEnvelopeV1]:
        """All envelopes: both CTRL envelopes, those of each tick (GOV, INGRESS, DATA), EGRESS."""
        return list(self._result.introspection_envelopes())

    def get_envelopes(self, tick: int | None = None, layer: str | None = None) -> list[NAPEnvelopeV1]:
        """The envelopes of a tick, of a layer, or both."""
        return [
            each
            for each in self._result.introspection_envelopes()
            if (tick is None or each.tick == tick) and (layer is None or each.layer == layer)
        ]

    def get_umx_ledger(self, tick: int) -> UMXTickLedgerV1:
        """The tick ledger of a tick. Raises `KeyError`."""
        return _found(self.ledgers_by_tick, tick, "No UMX tick ledger found for tick {}")

    def get_p_block(self, tick: int) -> LoomPBlockV1:
        """The P-block of a tick. Raises `KeyError`."""
        return _found(self.p_blocks_by_tick, tick, "No Loom P-block found for tick {}")

    def get_i_block(self, tick: int) -> LoomIBlockV1:
        """The I-block of a tick. Raises `KeyError`."""
        return _found(self.i_blocks_by_tick, tick, "No Loom I-block found for tick {}")

    def get_manifest(self, window_id: str) -> APXManifestV1:
        """The manifest of a window. Raises `KeyError`."""
        return _found(self.manifests_by_window, window_id, "No APX manifest found for window_id {!r}")

    def get_apxi_view(self, window_id: str) -> Any:
        """The APXi view of a window. Raises `KeyError`."""
        return _found(self.apxi_views_by_window, window_id, "No APXi view found for window_id {!r}")

    def get_uledger_entry(self, tick: int) -> ULedgerEntryV1:
        """The U-ledger entry of a tick. Raises `KeyError`."""
        return _found(self.uledger_by_tick, tick, "No U-ledger entry found for tick {}")

    def summary(self) -> dict[str, Any]:
        """What there is, in numbers, ids and ticks."""
        return {
            "gid": self.gid,
            "run_id": self.run_id,
            "total_ticks": self.total_ticks,
            "window_ids": self.window_ids,
            "manifest_windows": {window: each.apx_name for window, each in self.manifests_by_window.items()},
            "ledger_ticks": len(self.ledgers_by_tick),
            "p_block_ticks": len(self.p_blocks_by_tick),
            "i_block_ticks": list(self.i_blocks_by_tick),
            "uledger_ticks": len(self.uledger_by_tick),
            "envelopes": self.envelope_count,
            "codex_motifs": len(self.codex_motifs),
            "codex_proposals": len(self.codex_proposals),
        }


def build_introspection_view(result: SessionRunResult) -> IntrospectionViewV1:
    """Index a result. The U-ledger of a cancelled session is sealed by it."""
    return IntrospectionViewV1(result)


def _found(index: Mapping[_K, _V], key: _K, message: str) -> _V:
    try:
        return index[key]
    except KeyError:
        raise NotFoundError(message.format(key)) from None
