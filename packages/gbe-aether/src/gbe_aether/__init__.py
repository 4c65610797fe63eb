"""The Aether engine: the CMP-0 tick loop with its five pillars, exact and fast."""

from gbe_aether.apxi import APXiFitV1, ConstSegmentV1, LinearTrendV1, RunSegmentV1, best_fit, fit
from gbe_aether.bundle import Bundle, BundleWriter, documents_of, extend_bundle, write_bundle, write_digest_bundle
from gbe_aether.canonical import H, canonical, plain
from gbe_aether.documents import MAX_DOCUMENT_BYTES
from gbe_aether.errors import NotFoundError
from gbe_aether.governance import (
    BudgetPolicyV1,
    GovernanceConfigV1,
    SafetyPolicyV1,
    TopologyPolicyV1,
    governance_from_document,
    governance_from_run_config,
)
from gbe_aether.integrity import IntegrityLinkV1, integrity_links, merkle_root
from gbe_aether.introspection import IntrospectionViewV1, build_introspection_view
from gbe_aether.metrics import MetricsConfigV1, MetricsSnapshotV1
from gbe_aether.profile import ProfileConfigV1, cmp0_profile, load_profile_config
from gbe_aether.registry import ScenarioRegistryV1, ScenarioV1, load_scenario_registry, registry_from_document
from gbe_aether.replay import replay_state
from gbe_aether.result import GF01RunResult, SessionRunResult
from gbe_aether.run_config import (
    RunConfigV1,
    RunStreamV1,
    RunWindowV1,
    load_run_config,
    run_config_from_document,
)
from gbe_aether.session import Session, SessionProgressV1, run_session
from gbe_aether.session_config import (
    SessionConfigV1,
    load_run_session_config,
    load_scenario_session_config,
    session_config_from_documents,
    with_ticks,
)
from gbe_aether.snapshots import (
    SnapshotDiff,
    compare_snapshots,
    diff_snapshots,
    full_snapshot,
    session_snapshot,
    session_snapshot_sha256,
    write_snapshot,
)
from gbe_aether.structured_log import LoggingConfigV1, StructuredLogEntryV1, StructuredLogger
from gbe_aether.topology import TopologyProfileV1, load_topology_profile
from gbe_aether.verification import LedgerVerification, verify_ledger

__all__ = [
    # documents and configs
    "MAX_DOCUMENT_BYTES",
    "ScenarioRegistryV1",
    "ScenarioV1",
    "load_scenario_registry",
    "registry_from_document",
    "RunConfigV1",
    "RunStreamV1",
    "RunWindowV1",
    "load_run_config",
    "run_config_from_document",
    "TopologyProfileV1",
    "load_topology_profile",
    "ProfileConfigV1",
    "cmp0_profile",
    "load_profile_config",
    "SessionConfigV1",
    "load_run_session_config",
    "load_scenario_session_config",
    "session_config_from_documents",
    "with_ticks",
    "GovernanceConfigV1",
    "BudgetPolicyV1",
    "TopologyPolicyV1",
    "SafetyPolicyV1",
    "governance_from_document",
    "governance_from_run_config",
    "LoggingConfigV1",
    "MetricsConfigV1",
    # running
    "Session",
    "SessionProgressV1",
    "run_session",
    "StructuredLogger",
    "StructuredLogEntryV1",
    # results
    "SessionRunResult",
    "GF01RunResult",
    "MetricsSnapshotV1",
    "IntrospectionViewV1",
    "build_introspection_view",
    "NotFoundError",
    # snapshots, export, verification
    "SnapshotDiff",
    "session_snapshot",
    "full_snapshot",
    "session_snapshot_sha256",
    "write_snapshot",
    "diff_snapshots",
    "compare_snapshots",
    "Bundle",
    "BundleWriter",
    "documents_of",
    "write_bundle",
    "write_digest_bundle",
    "extend_bundle",
    "LedgerVerification",
    "verify_ledger",
    "replay_state",
    "IntegrityLinkV1",
    "integrity_links",
    "merkle_root",
    # APXi
    "APXiFitV1",
    "ConstSegmentV1",
    "LinearTrendV1",
    "RunSegmentV1",
    "fit",
    "best_fit",
    # canonical text
    "H",
    "canonical",
    "plain",
]
