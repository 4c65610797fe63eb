"""The records of a run, all their fields in canonical order (specification, sections 2 to 8)."""

from typing import Any

import msgspec

from gbe_aether.topology import TopologySnapshotEdgeV1


class EdgeTickV1(msgspec.Struct, frozen=True):
    """An edge in a tick: `du` unclamped, `raw` after the radius and before the cap, `f_e` the flux."""

    cap: int
    du: int
    e_id: int
    f_e: int
    i: int
    j: int
    raw: int


class UMXTickLedgerV1(msgspec.Struct, frozen=True):
    """What a tick did to the state."""

    causal_radius_applied: bool
    edges: list[EdgeTickV1]
    epsilon_applied: bool
    nap_ref: str
    policy_notes: list[str]
    post_u: list[int]
    pre_u: list[int]
    sum_post_u: int
    sum_pre_u: int
    tick: int
    z_check: int


class EdgeFluxV1(msgspec.Struct, frozen=True):
    """The flux over an edge."""

    e_id: int
    f_e: int


class LoomPBlockV1(msgspec.Struct, frozen=True):
    """The link of the time chain that belongs to a tick."""

    C_t: int
    edge_flux_summary: list[EdgeFluxV1]
    gid: str
    s_t: int
    seq: int
    tick: int
    topology_version: str


class LoomIBlockV1(msgspec.Struct, frozen=True):
    """The state and the topology at a tick from which a run can be replayed."""

    C_t: int
    W: int
    gid: str
    post_u: list[int]
    profile_version: str
    tick: int
    topology_snapshot: list[TopologySnapshotEdgeV1]
    topology_version: str


class APXStreamV1(msgspec.Struct, frozen=True):
    """The length estimate of a stream in bits."""

    L_model: int
    L_residual: int
    L_total: int
    description: str
    params: int
    scheme: str
    stream_id: str


class APXManifestV1(msgspec.Struct, frozen=True):
    """The manifest of a window: the lengths of its streams and a check number over them."""

    apx_name: str
    apxi_view_ref: str | None
    gid: str
    manifest_check: int
    profile: str
    streams: list[APXStreamV1]
    window_id: str


class NAPEnvelopeV1(msgspec.Struct, frozen=True):
    """An envelope at the gate."""

    gid: str
    layer: str
    meta: dict[str, Any]
    mode: str
    nid: str
    payload_ref: int
    prev_chain: int
    seq: int
    sig: str
    slp_event_ids: list[str]
    tick: int
    v: Any


class SceneFrameV1(msgspec.Struct, frozen=True):
    """A tick as one frame: state before and after, chain, manifest."""

    C_prev: int
    C_t: int
    gid: str
    ledger_ref: str
    manifest_check: int
    meta: dict[str, Any]
    nap_envelope_ref: str | None
    nid: str
    pfna_refs: list[str]
    post_u: list[int]
    pre_u: list[int]
    run_id: str
    tick: int
    window_id: str


class ULedgerEntryV1(msgspec.Struct, frozen=True):
    """A tick's entry in the hash chain over all records."""

    C_t: int
    apx_manifest_hash: str
    codex_library_hash: str | None
    gid: str
    loom_block_hash: str
    manifest_check: int
    meta: dict[str, Any]
    nap_envelope_hash: str
    policy_set_hash: str
    prev_entry_hash: str | None
    run_id: str
    slp_event_refs: list[str]
    tick: int
    timestamp_utc: str | None
    topology_version: str
    umx_ledger_hash: str
    window_id: str


class ULedgerCheckpointV1(msgspec.Struct, frozen=True):
    """The end of the chain."""

    end_tick: int
    entry_count: int
    gid: str
    head_hash: str
    manifest_hash: str
    policy_set_hash: str
    run_id: str
    start_tick: int
    window_id: str


class CodexMotifV1(msgspec.Struct, frozen=True):
    """A pattern of differences and fluxes that occurred."""

    created_at_tick: int
    last_updated_tick: int
    library_id: str
    mdl_stats: dict[str, int]
    meta: dict[str, Any]
    motif_id: str
    pattern_descriptor: dict[str, Any]
    profile: str
    source_gid: str
    source_window_id: str
    usage_stats: dict[str, int]


class CodexProposalV1(msgspec.Struct, frozen=True):
    """A proposal to place a motif, and what governance decided on it."""

    action: str
    budget_effect: dict[str, Any]
    created_at_tick: int
    evaluated_at_tick: int
    expected_effect: dict[str, Any]
    gid: str
    governance_notes: dict[str, Any]
    governance_scores: dict[str, float]
    governance_status: str
    library_id: str
    meta: dict[str, Any]
    motif_id: str
    proposal_id: str
    status: str
    target_location: dict[str, Any]
    target_window_id: str
    violated_policies: list[str]
