"""Golden files: recorded results and rejections, and whether the engine still gives them.

A case holds inputs and what is expected of their run, an error list inputs that are refused. What
is compared is everything that is expected; a key that this module doesn't know is a difference.
"""

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from gbe_aether.canonical import json_bytes, plain, structure_sha256
from gbe_aether.documents import read_document
from gbe_aether.introspection import build_introspection_view
from gbe_aether.registry import load_scenario_registry
from gbe_aether.result import SessionRunResult
from gbe_aether.session import run_session
from gbe_aether.session_config import SessionConfigV1, load_run_session_config
from gbe_aether.snapshots import SnapshotDiff, diff_snapshots, session_snapshot_sha256

FORMAT = "aether-golden/1"
EDGE_COLUMNS = ["e_id", "i", "j", "du", "raw", "cap", "f_e"]
_DOCUMENTS = ("topology", "profile", "pfna", "run_config")


class GoldenOutcome(msgspec.Struct, frozen=True):
    """What came of one case; without differences it passed."""

    case: str
    diffs: list[SnapshotDiff]

    @property
    def passed(self) -> bool:
        """Whether all that was expected came about."""
        return not self.diffs


def verify_golden(document: Any, kernel: str | None = None) -> Iterator[GoldenOutcome]:
    """Run the cases of a golden document.

    Args:
        document: The document.
        kernel: See `umx.Stepper`; for tests.

    Raises:
        ValueError: it isn't one.
    """
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"not a golden file: its format must be {FORMAT!r}")
    if "cases" in document:
        if not isinstance(document["cases"], list):
            raise ValueError("not a golden file: cases must be a list")
        if not document["cases"]:
            raise ValueError("not a golden file: it has no cases")
        for case in document["cases"]:
            yield _verify_error(case)
    elif isinstance(document.get("expect"), dict) and isinstance(document.get("inputs"), dict):
        yield _verify_case(document, kernel)
    else:
        raise ValueError("not a golden file: it has neither cases nor inputs and expect")


def _verify_case(document: Mapping[str, Any], kernel: str | None) -> GoldenOutcome:
    name = str(document.get("case", "?"))
    try:
        result = _run(document, kernel)
        found = observe(result, document["expect"])
    except Exception as error:
        return GoldenOutcome(name, [SnapshotDiff("expect", "a run", f"{type(error).__name__}: {error}")])
    diffs = diff_snapshots(document["expect"], found, 1)
    diffs = [msgspec.structs.replace(diff, path=f"expect.{diff.path}") for diff in diffs]
    return GoldenOutcome(name, diffs or _diff_further(document, result))


def _verify_error(case: Any) -> GoldenOutcome:
    if not isinstance(case, dict) or not isinstance(case.get("inputs"), dict):
        return GoldenOutcome("?", [SnapshotDiff("inputs", "an object", case)])
    name = str(case.get("case", "?"))
    expected = {key: value for key, value in case.items() if key not in ("inputs", "tags", "note", "mode")}
    stage, error = "none", None
    with tempfile.TemporaryDirectory(prefix="gbe-aether-") as folder:
        base = Path(folder).resolve()
        try:
            stage = "load"
            if "registry" in case["inputs"]:
                _write(base / "registry.json", case["inputs"]["registry"])
                load_scenario_registry(base / "registry.json")
            else:
                config = load_run_session_config(_stage(case["inputs"], base))
                stage = "run"
                _quietly(lambda: run_session(_contained(config, folder)))
            stage = "none"
        except Exception as raised:
            kind = next(each.__name__ for each in type(raised).__mro__ if each.__module__ == "builtins" or each is
                        json.JSONDecodeError)  # fmt: skip
            error = {"type": kind, "message": str(raised).replace(str(base), "<BASE>")}
    found = {"case": case.get("case"), "stage": stage, "error": error}
    return GoldenOutcome(name, diff_snapshots(expected, found, 1))


def _run(document: Mapping[str, Any], kernel: str | None) -> SessionRunResult:
    """Run a case's inputs, observed as the recording was: with a log and metrics where it has them."""
    inputs, expected = document["inputs"], document["expect"]
    config = inputs["run_config"]
    if isinstance(config, dict):
        config = dict(config)
        # A scenario's config is the file as it is on disk; these were switched on for the recording.
        if _total(expected.get("logs")) and not _enabled(config.get("logging")):
            config["logging"] = {"enabled": True, "destination": "memory"}
        if expected.get("metrics") is not None and not _enabled(config.get("metrics")):
            config["metrics"] = {"enabled": True}
    return _run_config(inputs, config, kernel)


def _total(logs: Any) -> bool:
    return isinstance(logs, dict) and bool(logs.get("total"))


def _enabled(block: Any) -> bool:
    return isinstance(block, dict) and bool(block.get("enabled"))


def _run_config(inputs: Mapping[str, Any], config: Any, kernel: str | None = None) -> SessionRunResult:
    with tempfile.TemporaryDirectory(prefix="gbe-aether-") as folder:
        if isinstance(config, dict):
            named = {f"{name}_path": f"{name}.json" for name in ("topology", "profile", "pfna")}
            config = {**config, **{key: value for key, value in named.items() if config.get(key)}}
        staged = _stage({**inputs, "run_config": config}, Path(folder))
        return _quietly(lambda: run_session(_contained(load_run_session_config(staged), folder), kernel=kernel))


def _contained(config: SessionConfigV1, folder: str) -> SessionConfigV1:
    """The config with a log file in the folder: a golden says what is compared, not which files are written."""
    if config.logging.destination != "file":
        return config
    logging = msgspec.structs.replace(config.logging, file_path=str(Path(folder) / "log.jsonl"))
    return msgspec.structs.replace(config, logging=logging)


def _quietly(run: Callable[[], SessionRunResult]) -> SessionRunResult:
    """What a run logs to stdout is no outcome of a verification."""
    with contextlib.redirect_stdout(io.StringIO()):
        return run()


def _stage(inputs: Mapping[str, Any], base: Path) -> Path:
    for name in _DOCUMENTS:
        if inputs.get(name) is not None:
            _write(base / f"{name}.json", inputs[name])
    return base / "run_config.json"


def _write(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value), encoding="utf-8")


# --- what is observed of a run ---------------------------------------------------------------------


def observe(result: SessionRunResult, expected: Mapping[str, Any]) -> dict[str, Any]:
    """The `expect` of a golden for a result.

    Args:
        result: The result.
        expected: What is expected; it decides which of the levels of detail the ticks have, and how
            many of the proposals are shown.
    """
    ticks = result.tick_result
    checkpoint = ticks.u_ledger_checkpoint
    entries = [plain(entry) for entry in ticks.u_ledger_entries]
    numbers = range(1, result.completed_ticks + 1)
    history = ticks.history
    governance = ticks.governance
    final = result.final_state
    columns = {"edge_columns": EDGE_COLUMNS}
    if expected.get("tick_detail") != "full" and "edge_columns" not in expected:
        columns = {}
    return {
        **columns,
        "gid": result.config.gid,
        "nid": result.config.nid,
        "run_id": result.run_id,
        "total_ticks": result.config.total_ticks,
        "final_u": final,
        "final_sum": sum(final),
        "tick_detail": expected.get("tick_detail"),
        "ticks": _ticks(result, expected),
        "loom": {
            "C0": result.config.profile.C0,
            "C_t": [history.chain(tick) for tick in numbers],
            "s_t": [history.s_t(tick) for tick in numbers],
            "seq": list(numbers),
            "p_block_ticks": list(numbers),
            "topology_version": result.config.topology.version,
            "i_blocks": [_i_block(plain(block)) for block in ticks.i_blocks],
        },
        "manifests": {name: plain(manifest) for name, manifest in ticks.manifests.items()},
        "manifests_order": list(ticks.manifests),
        "uledger": {
            "apx_manifest_hash": entries[-1]["apx_manifest_hash"] if entries else None,
            "checkpoint": plain(checkpoint),
            "entries": len(entries),
            "entry_hash": [ticks.sealing.entry_hashes(tick)[1] for tick in numbers],
            "first_entry": entries[0] if entries else None,
            "last_hash": ticks.last_hash,
            "loom_block_hash": [entry["loom_block_hash"] for entry in entries],
            "nap_envelope_hash": [entry["nap_envelope_hash"] for entry in entries],
            "umx_ledger_hash": [entry["umx_ledger_hash"] for entry in entries],
        },
        "envelopes": _envelopes(result),
        "scenes_sha256": structure_sha256(list(ticks.scenes)),
        "codex": _codex(result, expected),
        "governance": governance.snapshot(),
        "governance_budget_usage": ticks.governance_budget_usage,
        "governance_summary": ticks.governance_summary(),
        "metrics": plain(result.metrics),
        "introspection": _introspection(result),
        "logs": _logs(result),
        "session_snapshot_sha256": session_snapshot_sha256(result),
    }


def _ticks(result: SessionRunResult, expected: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The ledgers in the recording's detail: where that is reduced they have fluxes for edges, and fewer keys."""
    full = expected.get("tick_detail") == "full"
    recorded: set[str] = set()
    for row in expected["ticks"] if isinstance(expected.get("ticks"), list) else ():
        recorded.update(row if isinstance(row, dict) else ())
    observed = []
    for ledger in result.tick_result.ledgers:
        row = plain(ledger)
        edges = row.pop("edges")
        if full:
            row["edges"] = [[edge[column] for column in EDGE_COLUMNS] for edge in edges]
        else:
            row = {key: value for key, value in row.items() if key in recorded}
            row["f_e"] = [edge["f_e"] for edge in edges]
        observed.append(row)
    return observed


def _i_block(record: dict[str, Any]) -> dict[str, Any]:
    record["topology_snapshot_sha256"] = structure_sha256(record.pop("topology_snapshot"))
    return record


def _envelopes(result: SessionRunResult) -> dict[str, Any]:
    ticks = result.tick_result
    everything = [plain(each) for each in result.all_envelopes()]
    counts: dict[str, int] = {}
    for each in everything:
        counts[each["layer"]] = counts.get(each["layer"], 0) + 1
    governance = ticks.governance_envelopes
    data = ticks.envelopes
    return {
        "all_envelopes_sha256": structure_sha256(everything),
        "all_order_sha256": structure_sha256([[each["layer"], each["tick"], each["seq"]] for each in everything]),
        "introspection_envelopes_sha256": structure_sha256(list(result.introspection_envelopes())),
        "counts_by_layer": counts,
        "data_first": plain(data[0]) if data else None,
        "data_last": plain(data[-1]) if data else None,
        "egress": [plain(each) for each in ticks.egress_envelopes],
        "ingress": [plain(each) for each in ticks.ingress_envelopes],
        "lifecycle": [plain(each) for each in result.lifecycle_envelopes],
        "governance_count": len(governance),
        "governance_last": [plain(each) for each in governance[-3:]],
    }


def _codex(result: SessionRunResult, expected: Mapping[str, Any]) -> dict[str, Any]:
    ticks = result.tick_result
    proposals = [plain(each) for each in ticks.codex_proposals]
    shown = expected["codex"].get("proposals") if isinstance(expected.get("codex"), dict) else None
    limit = len(shown) if isinstance(shown, list) else 0
    if not limit:
        limit = len(proposals)
    return {
        "actions": [each.proposal_id for each in ticks.codex_actions],
        "hypothetical_actions": [each.proposal_id for each in ticks.codex_hypothetical_actions],
        "motif_first": plain(ticks.codex_motifs[0]) if ticks.codex_motifs else None,
        "motifs": len(ticks.codex_motifs),
        "motifs_sha256": structure_sha256(list(ticks.codex_motifs)),
        "proposals": [_shortened(each) for each in proposals[:limit]],
        "proposals_sha256": structure_sha256(proposals),
        "proposals_total": len(proposals),
    }


def _shortened(proposal: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("created_at_tick", "evaluated_at_tick", "governance_status", "motif_id", "proposal_id", "status")
    return {
        **{name: proposal[name] for name in kept},
        "delta_L_total": proposal["expected_effect"]["delta_L_total"],
        "notes": proposal["governance_notes"]["notes"],
        "violated_policies": proposal["violated_policies"],
    }


def _introspection(result: SessionRunResult) -> dict[str, Any]:
    summary = build_introspection_view(result).summary()
    del summary["gid"], summary["run_id"]
    return summary


def _log_entries(result: SessionRunResult) -> list[dict[str, Any]]:
    entries = [plain(entry) for entry in result.logs]
    for entry in entries:
        del entry["ts"]
    return entries


def _logs(result: SessionRunResult) -> dict[str, Any]:
    entries = _log_entries(result)
    counts: dict[str, int] = {}
    for entry in entries:
        counts[entry["event"]] = counts.get(entry["event"], 0) + 1
    return {
        "by_event": counts,
        "entries_without_ts_sha256": structure_sha256(entries),
        "event_order_sha256": structure_sha256([entry["event"] for entry in entries]),
        "total": len(entries),
    }


def _diff_further(document: Mapping[str, Any], result: SessionRunResult) -> list[SnapshotDiff]:
    """The differences in what a scenario's golden holds beside `expect`."""
    ticks = result.tick_result
    known: dict[str, Callable[[], Any]] = {
        "all_envelopes": lambda: [plain(each) for each in result.all_envelopes()],
        "codex_motifs": lambda: [plain(each) for each in ticks.codex_motifs],
        "codex_proposals": lambda: [plain(each) for each in ticks.codex_proposals],
        "log_entries_without_ts": lambda: _log_entries(result),
        "uledger_entries": lambda: [plain(each) for each in ticks.u_ledger_entries],
        "session_snapshot_sha256_unmodified_config": lambda: session_snapshot_sha256(
            _run_config(document["inputs"], document["inputs"]["run_config"])
        ),
    }
    about = {"case", "expect", "format", "inputs", "mode", "note", "tags"}
    for name in sorted(document.keys() - about):
        if name not in known:
            return [SnapshotDiff(name, document[name], "<not known>")]
        # Through JSON, as the recording went: a float stays one, a tuple becomes a list.
        found = json.loads(json_bytes(known[name]()))
        diffs = diff_snapshots({name: document[name]}, {name: found}, 1)
        if diffs:
            return diffs
    return []


def verify_golden_file(path: str | os.PathLike[str], kernel: str | None = None) -> Iterator[GoldenOutcome]:
    """Run the cases of a golden file. Raises what `read_document` and `verify_golden` raise."""
    yield from verify_golden(read_document(path, "Golden file"), kernel)
