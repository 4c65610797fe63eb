"""Verifying a U-ledger: the whole hash chain once more, from the records (specification, section 8)."""

import contextlib
import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from gbe_aether.canonical import H, canonical, plain
from gbe_aether.result import SessionRunResult
from gbe_aether.snapshots import FULL_FORMAT
from gbe_aether.structured_log import LoggingConfigV1

if TYPE_CHECKING:
    from gbe_aether.bundle import Bundle
    from gbe_aether.session import Session


class LedgerVerification(msgspec.Struct, frozen=True):
    """What a verification found.

    Attributes:
        ok: Whether everything agrees.
        ticks: How many entries agreed, from the first on.
        last_hash: The hash of the last entry, when everything agrees and there is one.
        problem: What disagrees first; empty when nothing does.
    """

    ok: bool
    ticks: int
    last_hash: str | None
    problem: str = ""


class TickTexts(msgspec.Struct, frozen=True):
    """What is hashed of a tick, as canonical text."""

    ledger: bytes
    p_block: bytes
    envelope: bytes
    entry: bytes


def verify_ledger(source: SessionRunResult | Mapping[str, Any] | str | os.PathLike[str]) -> LedgerVerification:
    """Recompute the hash chain of a U-ledger from the records it stands for; where a bundle has only their hashes, from
    its inputs, by running the session again.

    Args:
        source: A result, a full snapshot (`full_snapshot`), or the file of an export bundle.

    Raises:
        ValueError: it is none of these.
        OSError: the file cannot be read.
    """
    if isinstance(source, SessionRunResult):
        return _verify_result(source)
    if isinstance(source, Mapping):
        return _verify_snapshot(source)
    from gbe_aether.bundle import Bundle

    try:
        with Bundle(source) as bundle:
            if bundle.has_records:
                return _verify(bundle.tick_texts(), bundle.session)
            if bundle.has_digests:
                return _verify_digests(bundle)
            return _verify_by_running(bundle)
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"not an export bundle: {os.fspath(source)}: {error}") from error


def _verify_result(result: SessionRunResult) -> LedgerVerification:
    ticks = result.tick_result
    history = ticks.history
    ticks.seal()

    def texts() -> Iterator[TickTexts]:
        for tick, (envelope, entry) in enumerate(ticks.sealing.tick_texts(), 1):
            yield TickTexts(history.ledger_text(tick), history.loom_text(tick), envelope, entry)

    return _verify(texts(), session_part(result))


def _verify_snapshot(snapshot: Mapping[str, Any]) -> LedgerVerification:
    if snapshot.get("format") != FULL_FORMAT:
        raise ValueError(
            "the ledger can be verified from a full snapshot only: the recorded form leaves out fields that are hashed"
        )
    for name in ("config", "governance"):
        if not isinstance(snapshot.get(name), Mapping):
            raise ValueError(f"the full snapshot lacks {name}")
    lists = [snapshot.get(name) for name in ("ledgers", "p_blocks", "envelopes", "u_ledger_entries")]
    if not all(isinstance(each, list) for each in lists):
        raise ValueError("the full snapshot lacks ledgers, p_blocks, envelopes or u_ledger_entries")
    lengths = {len(each) for each in lists if isinstance(each, list)}
    if len(lengths) > 1:
        return LedgerVerification(False, 0, None, "ledgers, p_blocks, envelopes and entries differ in number")
    try:
        texts = (TickTexts(*map(canonical, each)) for each in zip(*lists, strict=True))
        return _verify(texts, snapshot)
    except TypeError as error:
        return LedgerVerification(False, 0, None, str(error))


def tick_hashes(result: SessionRunResult) -> Iterator[bytes]:
    """A line for each tick: the hashes of its ledger, P-block, DATA envelope and U-ledger entry."""
    ticks = result.tick_result
    for tick in range(1, result.completed_ticks + 1):
        umx, loom = ticks.history.hashes(tick)
        nap, entry = ticks.sealing.entry_hashes(tick)
        yield b'{"entry":"%b","loom":"%b","nap":"%b","tick":%d,"umx":"%b"}' % (
            entry.encode(),
            loom.encode(),
            nap.encode(),
            tick,
            umx.encode(),
        )


def _verify_by_running(bundle: "Bundle") -> LedgerVerification:
    """Run a bundle's session again, as far as it has hashes, and compare everything with what it says."""
    from gbe_aether.bundle import HASHES
    from gbe_aether.session import Session
    from gbe_aether.session_config import session_config_from_documents

    config = msgspec.structs.replace(session_config_from_documents(**bundle.inputs), logging=LoggingConfigV1())
    session, said = Session(config), bundle.session
    for _ in bundle.lines(HASHES):
        if session.step() is None:
            problem = f"hashes[{session.tick}]: recorded, but the session has only {session.total_ticks} ticks"
            return LedgerVerification(False, 0, None, problem)
    if said.get("status") != "completed":
        session.cancel()
    elif session.tick < session.total_ticks:
        problem = f"hashes: {session.tick} recorded of a session of {session.total_ticks} ticks that is completed"
        return LedgerVerification(False, 0, None, problem)
    result = session.result()
    result.tick_result.seal()
    for index, (recorded, recomputed) in enumerate(zip(bundle.lines(HASHES), tick_hashes(result), strict=True)):
        if recorded != recomputed:
            problem = f"hashes[{index}]: recorded {recorded.decode()!r}, recomputed {recomputed.decode()!r}"
            return LedgerVerification(False, index, None, problem)
    for name, value in session_part(result).items():
        shown = said.get(name)
        if name == "config" and isinstance(shown, dict):
            shown = {key: shown.get(key) for key in value}
        if name == "governance" and isinstance(shown, dict):
            shown = {key: shown.get(key) for key in value}
        if shown != value:
            problem = f"{name}: recorded {shown!r}, recomputed {value!r}"
            return LedgerVerification(False, result.completed_ticks, None, problem)
    return LedgerVerification(True, result.completed_ticks, result.tick_result.last_hash)


_DIGESTED = 4096
"""Ticks that one digest covers at most, so that whatever is wrong is found after so many ticks."""

_FOUND_AGAIN = ("ValueError", "TypeError", "OverflowError")
"""Errors that follow from the inputs; a full disk does not."""


def _verify_digests(bundle: "Bundle") -> LedgerVerification:
    """Run a bundle's session again, as far as it has digests, and compare everything with what it says."""
    from gbe_aether.bundle import DIGESTS
    from gbe_aether.session import Session
    from gbe_aether.session_config import session_config_from_documents

    config = msgspec.structs.replace(session_config_from_documents(**bundle.inputs), logging=LoggingConfigV1())
    session, said = Session(config), bundle.session
    for index, line in enumerate(bundle.lines(DIGESTS)):
        done, tick, recorded = session.tick, *_digest_in(line)
        if not done < tick <= min(done + _DIGESTED, session.total_ticks):
            problem = f"digests[{index}]: a digest up to tick {tick} cannot follow one up to tick {done}"
            return LedgerVerification(False, done, None, problem)
        while session.tick < tick:
            session.step()
        found = session.digest(done)
        if found != recorded:
            problem = f"digests[{index}]: ticks {done + 1} to {tick}: recorded {recorded!r}, recomputed {found!r}"
            return LedgerVerification(False, done, None, problem)
    error = said.get("error")
    if isinstance(error, dict) and error.get("type") in _FOUND_AGAIN:
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            if session.step() is None:
                session.result()
    elif said.get("status") in ("cancelled", "sealing", "completed") or said.get("manifests"):
        # One with manifests that failed of something else, a full disk say, had closed its windows before.
        if said.get("status") in ("sealing", "completed") and session.tick < session.total_ticks:
            problem = f"digests: {session.tick} ticks of a session of {session.total_ticks} whose ticks are all done"
            return LedgerVerification(False, session.tick, None, problem)
        # Closes the windows and seals nothing.
        session.cancel()
        if said.get("u_ledger_checkpoint") is not None:
            session.result().tick_result.seal()
    for name, value in trace_part(session).items():
        shown = said.get(name)
        kind = shown.get("type") if name == "error" and isinstance(shown, dict) else None
        if isinstance(kind, str) and kind not in _FOUND_AGAIN:
            continue
        if name == "governance" and isinstance(shown, dict):
            shown = {key: shown.get(key) for key in value}
        if shown != value:
            problem = f"{name}: recorded {shown!r}, recomputed {value!r}"
            return LedgerVerification(False, session.tick, None, problem)
    checkpoint = session.checkpoint
    return LedgerVerification(True, session.tick, None if checkpoint is None else checkpoint.head_hash)


def _digest_in(line: bytes) -> tuple[int, str]:
    value = json.loads(line)
    if not isinstance(value, dict) or not isinstance(value.get("tick"), int):
        raise ValueError(f"not a digest: {line[:100]!r}")
    return value["tick"], str(value.get("sha256"))


def trace_part(session: "Session") -> dict[str, Any]:
    """What a verification wants to know of a session beside the digests of its ticks; it never takes long."""
    config, error = session.config, session.error
    primary = [window for window in config.windows if window.window_id == config.primary_window_id][-1]
    return {
        "completed_ticks": session.tick,
        "config": {
            "gid": config.gid,
            "run_id": config.run_id,
            "primary_window_id": config.primary_window_id,
        },
        "chain": session.chain,
        "error": None if error is None else {"type": type(error).__name__, "message": str(error)},
        "final_state": session.state,
        "governance": {"policy_set_hash": config.governance.policy_set_hash},
        "manifests": {name: plain(manifest) for name, manifest in session.manifests.items()},
        "primary_manifest": plain(session.manifests.get(primary.apx_name)),
        "u_ledger_checkpoint": plain(session.checkpoint),
    }


def session_part(result: SessionRunResult) -> dict[str, Any]:
    """What a verification wants to know of the session beside the records of its ticks."""
    ticks = result.tick_result
    config = result.config
    return {
        "completed_ticks": result.completed_ticks,
        "config": {
            "gid": config.gid,
            "run_id": config.run_id,
            "primary_window_id": config.primary_window_id,
        },
        "primary_manifest": json.loads(canonical(ticks.primary_manifest)),
        "governance": {"policy_set_hash": config.governance.policy_set_hash},
        "u_ledger_checkpoint": json.loads(canonical(ticks.u_ledger_checkpoint)),
    }


def _verify(ticks: Iterable[TickTexts], session: Mapping[str, Any]) -> LedgerVerification:
    config = session["config"]
    for name in ("gid", "run_id", "primary_window_id"):
        if name not in config:
            return LedgerVerification(False, 0, None, f"config.{name}: missing")
    if "policy_set_hash" not in session["governance"]:
        return LedgerVerification(False, 0, None, "governance.policy_set_hash: missing")
    manifest = session.get("primary_manifest")
    if not isinstance(manifest, dict):
        return LedgerVerification(False, 0, None, "the primary window has no manifest")
    hashed = {key: value for key, value in manifest.items() if key != "apxi_view_ref" or value is not None}
    same = {
        "gid": config["gid"],
        "run_id": config["run_id"],
        "window_id": config["primary_window_id"],
        "apx_manifest_hash": H(hashed),
        "manifest_check": manifest.get("manifest_check"),
        "policy_set_hash": session["governance"]["policy_set_hash"],
    }
    previous, count, first = None, 0, None
    for number, texts in enumerate(ticks, 1):
        entry = json.loads(texts.entry)
        if not isinstance(entry, dict):
            return LedgerVerification(False, count, None, f"u_ledger_entries[{count}]: not an object")
        expected = {
            **same,
            "tick": number,
            "prev_entry_hash": previous,
            "umx_ledger_hash": hashlib.sha256(texts.ledger).hexdigest(),
            "loom_block_hash": hashlib.sha256(texts.p_block).hexdigest(),
            "nap_envelope_hash": hashlib.sha256(texts.envelope).hexdigest(),
        }
        if first is None:
            first = {name: entry.get(name) for name in ("topology_version", "meta")}
        expected.update(first)
        for name, value in expected.items():
            if entry.get(name) != value:
                problem = f"u_ledger_entries[{count}].{name}: recorded {entry.get(name)!r}, recomputed {value!r}"
                return LedgerVerification(False, count, None, problem)
        previous = hashlib.sha256(texts.entry).hexdigest()
        count = number
    checkpoint = session.get("u_ledger_checkpoint")
    expected_end = None
    if count:
        expected_end = {
            "gid": config["gid"],
            "run_id": config["run_id"],
            "window_id": config["primary_window_id"],
            "start_tick": 1,
            "end_tick": count,
            "entry_count": count,
            "head_hash": previous,
            "manifest_hash": same["apx_manifest_hash"],
            "policy_set_hash": same["policy_set_hash"],
        }
    if checkpoint != expected_end:
        return LedgerVerification(False, count, None, f"u_ledger_checkpoint: recorded {checkpoint!r}")
    if session.get("completed_ticks") != count:
        problem = f"completed_ticks: recorded {session.get('completed_ticks')!r}, there are {count} entries"
        return LedgerVerification(False, count, None, problem)
    return LedgerVerification(True, count, previous)
