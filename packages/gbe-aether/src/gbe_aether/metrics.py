"""The metrics of a run (specification, section 11)."""

import msgspec


class MetricsConfigV1(msgspec.Struct, frozen=True):
    """Whether a run counts."""

    enabled: bool = False


class MetricsSnapshotV1(msgspec.Struct, frozen=True):
    """What a run consisted of, in numbers."""

    apx_manifests: int
    apxi_views: int
    gid: str
    nap_data: int
    nap_egress: int
    nap_ingress: int
    nap_total: int
    run_id: str
    total_ticks: int
    uledger_entries: int
    uledger_last_hash: str | None
    window_count: int
