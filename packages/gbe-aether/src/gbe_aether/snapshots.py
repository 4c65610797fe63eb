"""Session snapshots: the recorded form, the full form, files, and differences (specification, section 13)."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gbe_aether.canonical import ascii_indented, ascii_text, plain
from gbe_aether.documents import read_document
from gbe_aether.records import EdgeFluxV1, EdgeTickV1
from gbe_aether.result import SessionRunResult
from gbe_aether.run_config import RunConfigV1
from gbe_aether.session import run_session
from gbe_aether.session_config import SessionConfigV1, load_run_session_config, load_scenario_session_config
from gbe_aether.topology import TopologySnapshotEdgeV1

FULL_FORMAT = "gbe-aether-full/1"
MISSING = "<missing>"


# What the recorded form has of each record. Fields that are hashed are missing in them.


class _Ledger(msgspec.Struct):
    edges: list[EdgeTickV1]
    post_u: list[int]
    pre_u: list[int]
    sum_post_u: int
    sum_pre_u: int
    tick: int
    z_check: int


class _PBlock(msgspec.Struct):
    C_t: int
    edge_flux_summary: list[EdgeFluxV1]
    s_t: int
    seq: int
    tick: int


class _IBlock(msgspec.Struct):
    C_t: int
    W: int
    post_u: list[int]
    profile_version: str
    tick: int
    topology_snapshot: list[TopologySnapshotEdgeV1]


class _Scene(msgspec.Struct):
    C_prev: int
    C_t: int
    gid: str
    ledger_ref: str
    manifest_check: int
    meta: dict[str, Any]
    nap_envelope_ref: str | None
    nid: str
    post_u: list[int]
    pre_u: list[int]
    run_id: str
    tick: int
    window_id: str


class _Entry(msgspec.Struct):
    C_t: int
    apx_manifest_hash: str
    codex_library_hash: str | None
    gid: str
    loom_block_hash: str
    manifest_check: int
    meta: dict[str, Any]
    nap_envelope_hash: str
    prev_entry_hash: str | None
    run_id: str
    tick: int
    timestamp_utc: str | None
    umx_ledger_hash: str
    window_id: str


_REDUCED: dict[str, type[msgspec.Struct]] = {
    "ledgers": _Ledger,
    "p_blocks": _PBlock,
    "i_blocks": _IBlock,
    "scenes": _Scene,
    "u_ledger_entries": _Entry,
}


def _config_part(config: SessionConfigV1) -> dict[str, Any]:
    return {
        "run_id": config.run_id,
        "gid": config.gid,
        "nid": config.nid,
        "total_ticks": config.total_ticks,
        "primary_window_id": config.primary_window_id,
        "window_ids": sorted(window.window_id for window in config.windows),
        "press_default_streams": plain(config.press_default_streams),
        "pfna_inputs": plain(config.pfna_inputs),
        "initial_state": list(config.initial_state),
    }


def _tick_result_parts(result: SessionRunResult) -> dict[str, Any]:
    """The members of `tick_result` as lazy sequences of structs, or plain values."""
    ticks = result.tick_result
    parts: dict[str, Any] = {
        "run_id": result.run_id,
        "ledgers": ticks.ledgers,
        "p_blocks": ticks.p_blocks,
        "i_blocks": ticks.i_blocks,
        "manifests": ticks.manifests,
        "scenes": ticks.scenes,
        "envelopes": ticks.envelopes,
        "governance_envelopes": ticks.governance_envelopes,
        "u_ledger_entries": ticks.u_ledger_entries,
        "ingress_envelopes": ticks.ingress_envelopes,
        "egress_envelopes": ticks.egress_envelopes,
    }
    optional = {
        "codex_motifs": ticks.codex_motifs,
        "codex_proposals": ticks.codex_proposals,
        "codex_actions": ticks.codex_actions,
        "codex_hypothetical_actions": ticks.codex_hypothetical_actions,
        "governance_budget_usage": ticks.governance_budget_usage,
    }
    parts.update({name: value for name, value in optional.items() if value is not None and len(value)})
    return parts


def _reduced(name: str, record: Any) -> Any:
    form = _REDUCED.get(name)
    return record if form is None else form(*(getattr(record, field) for field in form.__struct_fields__))


def _reduced_manifest(record: Any) -> dict[str, Any]:
    value: dict[str, Any] = plain(record)
    del value["gid"], value["window_id"]
    if value["apxi_view_ref"] is None:
        del value["apxi_view_ref"]
    return value


def _members(result: SessionRunResult) -> dict[str, Any]:
    members: dict[str, Any] = {
        "config": _config_part(result.config),
        "lifecycle_envelopes": result.lifecycle_envelopes,
        "tick_result": _tick_result_parts(result),
    }
    if result.metrics is not None:
        members["metrics"] = plain(result.metrics)
    return members


def session_snapshot(result: SessionRunResult) -> dict[str, Any]:
    """The snapshot of a session as it has always been recorded, in memory as a whole.

    It leaves out fields that are hashed, so the U-ledger cannot be verified from it; `full_snapshot` can.
    """
    members = _members(result)
    parts = members["tick_result"]
    for name, value in parts.items():
        if name == "manifests":
            parts[name] = {apx_name: _reduced_manifest(each) for apx_name, each in value.items()}
        elif isinstance(value, Sequence) and not isinstance(value, str):
            parts[name] = [plain(_reduced(name, each)) for each in value]
    members["lifecycle_envelopes"] = [plain(each) for each in members["lifecycle_envelopes"]]
    return members


def full_snapshot(result: SessionRunResult) -> dict[str, Any]:
    """Everything that is hashed, and all else of the result, in memory as a whole: `verify_ledger` takes it."""
    ticks = result.tick_result
    snapshot: dict[str, Any] = {
        name: [plain(each) for each in value] if isinstance(value, Sequence) and not isinstance(value, str) else value
        for name, value in _tick_result_parts(result).items()
    }
    snapshot.update(
        format=FULL_FORMAT,
        status=result.status,
        completed_ticks=result.completed_ticks,
        config=_config_part(result.config),
        primary_manifest=plain(ticks.primary_manifest),
        manifests={name: plain(each) for name, each in ticks.manifests.items()},
        lifecycle_envelopes=[plain(each) for each in result.lifecycle_envelopes],
        u_ledger_checkpoint=plain(ticks.u_ledger_checkpoint),
        governance=result.config.governance.snapshot(),
        metrics=plain(result.metrics),
    )
    return snapshot


def snapshot_text(result: SessionRunResult) -> Iterator[str]:
    """The canonical text of the session snapshot in pieces: its memory doesn't grow with the ticks."""
    members = _members(result)
    separator = "{"
    for name in sorted(members):
        yield f"{separator}{ascii_text(name)}:"
        separator = ","
        if name == "tick_result":
            yield from _parts_text(members[name])
        else:
            value = members[name]
            yield ascii_text(list(value) if name == "lifecycle_envelopes" else value)
    yield "}"


def _parts_text(parts: Mapping[str, Any]) -> Iterator[str]:
    separator = "{"
    for name in sorted(parts):
        value = parts[name]
        yield f"{separator}{ascii_text(name)}:"
        separator = ","
        if name == "manifests":
            yield ascii_text({apx_name: _reduced_manifest(each) for apx_name, each in value.items()})
        elif isinstance(value, Sequence) and not isinstance(value, str):
            inner = "["
            for each in value:
                yield inner + ascii_text(_reduced(name, each))
                inner = ","
            yield "[]" if inner == "[" else "]"
        else:
            yield ascii_text(value)
    yield "}"


def session_snapshot_sha256(result: SessionRunResult) -> str:
    """SHA-256 of the snapshot's canonical text."""
    hasher = hashlib.sha256()
    for piece in snapshot_text(result):
        hasher.update(piece.encode("ascii"))
    return hasher.hexdigest()


def write_snapshot(snapshot: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a snapshot to a file: indented by two, sorted keys, ASCII, no final line feed.

    Parent folders are made. The file is whole or not there at all. Raises `OSError`.
    """
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        partial.write_text(ascii_indented(snapshot), encoding="ascii")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


class SnapshotDiff(msgspec.Struct, frozen=True):
    """One difference between two snapshots; a missing side is `<missing>`."""

    path: str
    baseline: Any
    candidate: Any

    def render(self) -> str:
        """The difference in a line."""
        return f"{self.path or '<root>'}: baseline={self.baseline!r} candidate={self.candidate!r}"


def diff_snapshots(baseline: Any, candidate: Any, max_diffs: int = 100) -> list[SnapshotDiff]:
    """The differences between two JSON values, in the order of section 13, about `max_diffs` at most."""
    diffs: list[SnapshotDiff] = []
    _diff(baseline, candidate, "", diffs, max_diffs)
    return diffs


def _diff(a: Any, b: Any, path: str, diffs: list[SnapshotDiff], limit: int) -> None:
    if len(diffs) >= limit:
        return
    if type(a) is not type(b):
        diffs.append(SnapshotDiff(path, a, b))
    elif isinstance(a, dict):
        for key in sorted(a.keys() | b.keys()):
            inner = f"{path}.{key}" if path else key
            if key not in a:
                diffs.append(SnapshotDiff(inner, MISSING, b[key]))
            elif key not in b:
                diffs.append(SnapshotDiff(inner, a[key], MISSING))
            else:
                _diff(a[key], b[key], inner, diffs, limit)
    elif isinstance(a, list):
        for index, (x, y) in enumerate(zip(a, b)):  # noqa: B905 - over the shorter
            _diff(x, y, f"{path}[{index}]", diffs, limit)
        if len(a) != len(b) and len(diffs) < limit:
            diffs.append(SnapshotDiff(f"{path}.length", len(a), len(b)))
    elif a != b:
        diffs.append(SnapshotDiff(path, a, b))


def compare_snapshots(
    baseline_path: str | os.PathLike[str],
    *,
    candidate_path: str | os.PathLike[str] | None = None,
    run_config: RunConfigV1 | SessionConfigV1 | str | os.PathLike[str] | None = None,
    scenario: str | None = None,
    registry_path: str | os.PathLike[str] | None = None,
    max_diffs: int = 100,
) -> tuple[list[SnapshotDiff], dict[str, Any]]:
    """Compare a snapshot file with another, or with that of a run.

    A candidate file goes before a run config, that before a scenario.

    Returns:
        The differences and the candidate snapshot.

    Raises:
        ValueError: nothing to compare with was said, or whatever refuses the files.
        OSError, json.JSONDecodeError: a file cannot be read.
    """
    if candidate_path is not None:
        candidate = read_document(candidate_path, "Snapshot")
    elif run_config is not None:
        config = run_config if isinstance(run_config, SessionConfigV1) else load_run_session_config(run_config)
        candidate = json.loads(ascii_text(session_snapshot(run_session(config))))
    elif scenario is not None and registry_path is not None:
        config = load_scenario_session_config(registry_path, scenario)
        candidate = json.loads(ascii_text(session_snapshot(run_session(config))))
    else:
        raise ValueError("Provide candidate_path, run_config, or scenario+registry_path")
    return diff_snapshots(read_document(baseline_path, "Snapshot"), candidate, max_diffs), candidate
