"""The export bundle: a whole result in a zip file, written and read as a stream.

| member | holds |
|---|---|
| `inputs.json` | `run_config`, `topology`, `profile`, `pfna`: `session_config_from_documents` takes them |
| `session.json` | status, config, manifests, governance, budget usage, lifecycle envelopes, final state, checkpoint |
| `ledgers.jsonl`, `p_blocks.jsonl`, `u_ledger.jsonl`, `data_envelopes.jsonl` | what is hashed of each tick, one line of canonical JSON for each: the SHA-256 of a line is the record's hash |
| `i_blocks.jsonl`, `scenes.jsonl`, `codex_motifs.jsonl`, `codex_proposals.jsonl` | further records |
| `envelopes.jsonl` | all envelopes in the session's order |
| `introspection.json`, `metrics.json` | the view's summary; the metrics or `null` |
| `logs.jsonl` | the log entries that were kept in memory |
| `session_snapshot.json` | the snapshot in its recorded form, unless it was left out |
| `hashes.jsonl` | in a bundle without records: the hashes of each tick's ledger, P-block, DATA envelope and U-ledger entry |
| `digests.jsonl` | in a bundle without records or hashes: SHA-256 over the hashes of the ledgers and P-blocks of up to some thousand ticks each |
| `manifest.json` | the last member: the format, the status, `records`, and `{name: {sha256, size}}` of all others |

The records of a long run are many times what they follow from, so beyond `RECORD_VALUES` a bundle has their hashes
(`records` is `hashes`, not `all`) instead of the eight members with records, and beyond `HASHED_TICKS` only digests of
them, which were made as it ran. It is verified by running the session again from its inputs and comparing every one.

A session that was stopped after millions of ticks, or failed, has no U-ledger, and nobody waits until it has. Its bundle
(`write_digest_bundle`) is written at once whatever its length: `inputs.json`, `session.json` with status, error, final
state and manifests, and the digests.
"""  # noqa: E501 - a table

import contextlib
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from gbe_aether.canonical import json_bytes, plain, record_bytes
from gbe_aether.introspection import build_introspection_view
from gbe_aether.result import SessionRunResult
from gbe_aether.session_config import SessionConfigV1
from gbe_aether.snapshots import snapshot_text
from gbe_aether.verification import TickTexts, session_part, tick_hashes, trace_part

if TYPE_CHECKING:
    from gbe_aether.session import Session

FORMAT = "gbe-aether-bundle/1"
MANIFEST = "manifest.json"

SNAPSHOT_VALUES = 250_000
"""Up to how many values (ticks times nodes and edges) a bundle holds the session snapshot unless told otherwise."""

RECORD_VALUES = 500_000
"""Up to how many values a bundle holds the records themselves unless told otherwise: some three seconds of writing."""

HASHED_TICKS = 1_000_000
"""Up to how many ticks a bundle without records holds the hashes of each unless told otherwise: 165 MB."""

HASHES = "hashes.jsonl"
DIGESTS = "digests.jsonl"

_BLOCK = 256 * 1024
_LINE_LIMIT = 256 * 1024 * 1024

Step = Callable[[], None]


class BundleWriter:
    """Writes a bundle member by member. Leaving the context without an error completes the file.

    The file has its name only when it is complete; after an error there is none.

    Args:
        path: The zip file to write; one that is there is replaced.
        about: What `manifest.json` says beside format and members.
        step: Called between bounded pieces of work. What it raises ends the writing.
    """

    def __init__(self, path: str | os.PathLike[str], about: Mapping[str, Any], step: Step | None = None) -> None:
        self._path = Path(path)
        self._partial = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        self._about = dict(about)
        self._step = step or (lambda: None)
        self._members: dict[str, dict[str, Any]] = {}
        self._zip: zipfile.ZipFile | None = None

    def __enter__(self) -> "BundleWriter":
        try:
            self._zip = zipfile.ZipFile(self._partial, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fspath(self._path)) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._zip is not None
        if isinstance(error, OSError) and error.filename is None:
            # What writing to an open file raises doesn't say which.
            error.filename = os.fspath(self._path)
        try:
            if error is None:
                manifest = {"format": FORMAT, **self._about, "members": self._members}
                self._zip.writestr(MANIFEST, json_bytes(manifest))
                self._zip.close()
                self._partial.replace(self._path)
        finally:
            with contextlib.suppress(OSError, ValueError):
                self._zip.close()
            self._partial.unlink(missing_ok=True)

    def add(self, name: str, content: bytes | Iterable[bytes]) -> None:
        """Add a member. Raises `ValueError` for a name that is taken."""
        assert self._zip is not None
        if name in self._members or name == MANIFEST:
            raise ValueError(f"the bundle has a member {name!r} already")
        hasher, size = hashlib.sha256(), 0
        with self._zip.open(name, "w", force_zip64=True) as member:
            for piece in _pieces([content] if isinstance(content, bytes) else content):
                self._step()
                hasher.update(piece)
                size += len(piece)
                member.write(piece)
        self._members[name] = {"sha256": hasher.hexdigest(), "size": size}


def write_bundle(
    result: SessionRunResult,
    path: str | os.PathLike[str],
    *,
    records: bool | None = None,
    snapshot: bool | None = None,
    further: Mapping[str, bytes] | None = None,
    step: Step | None = None,
) -> None:
    """Write the whole result to a zip file. Memory doesn't grow with the ticks.

    Args:
        result: Completed or cancelled; a cancelled one's U-ledger is sealed first.
        path: The file; one that is there is replaced when the new one is complete.
        records: Whether the records of the ticks are in it, or their hashes only; unless said, the records are
            where the run has at most `RECORD_VALUES` values, and their hashes where it has at most `HASHED_TICKS`
            ticks; else there are digests.
        snapshot: Whether the session snapshot, which repeats most records, is in it; unless said,
            it is where the run has at most `SNAPSHOT_VALUES` values.
        further: More members, by name.
        step: Called between bounded pieces of work; what it raises ends the writing, and no file is left.

    Raises:
        OSError: the file cannot be written.
    """
    ticks, config = result.tick_result, result.config
    step = step or (lambda: None)
    while not ticks.seal(0):
        step()
    history, sealing = ticks.history, ticks.sealing
    every = range(1, result.completed_ticks + 1)
    values = len(every) * (len(config.topology.edges) + config.topology.N)
    digests = records is None and len(every) > HASHED_TICKS
    if records is None:
        records = values <= RECORD_VALUES and not digests
    if snapshot is None:
        snapshot = values <= SNAPSHOT_VALUES
    about = {
        "gid": config.gid,
        "run_id": config.run_id,
        "status": result.status,
        "records": "all" if records else "digests" if digests else "hashes",
        "total_ticks": config.total_ticks,
        "completed_ticks": result.completed_ticks,
        "uledger_last_hash": ticks.last_hash,
    }
    with BundleWriter(path, about, step) as bundle:
        bundle.add("inputs.json", json_bytes(documents_of(config)))
        bundle.add("session.json", json_bytes(_session_json(result)))
        if records:
            bundle.add("ledgers.jsonl", _lines(map(history.ledger_text, every)))
            bundle.add("p_blocks.jsonl", _lines(map(history.loom_text, every)))
            bundle.add("data_envelopes.jsonl", _lines(envelope for envelope, _ in sealing.tick_texts()))
            bundle.add("u_ledger.jsonl", _lines(entry for _, entry in sealing.tick_texts()))
            bundle.add("i_blocks.jsonl", _records(ticks.i_blocks))
            bundle.add("scenes.jsonl", _records(ticks.scenes))
            bundle.add("envelopes.jsonl", _records(result.all_envelopes()))
        elif digests:
            bundle.add(DIGESTS, _digest_lines(history.digests(len(every))))
        else:
            bundle.add(HASHES, _lines(tick_hashes(result)))
        bundle.add("codex_motifs.jsonl", _records(ticks.codex_motifs))
        bundle.add("codex_proposals.jsonl", _records(ticks.codex_proposals))
        bundle.add("introspection.json", json_bytes(build_introspection_view(result).summary()))
        bundle.add("metrics.json", json_bytes(plain(result.metrics)))
        bundle.add("logs.jsonl", _lines(result.logs.lines()))
        if snapshot:
            bundle.add("session_snapshot.json", (piece.encode("ascii") for piece in snapshot_text(result)))
        for name, content in (further or {}).items():
            bundle.add(name, content)


def write_digest_bundle(session: "Session", path: str | os.PathLike[str], step: Step | None = None) -> None:
    """Write what a session did so far to a zip file, at once and whatever its length: digests of its ticks.

    Args:
        session: In any phase, also failed or closed.
        path: The file; one that is there is replaced when the new one is complete.
        step: As in `write_bundle`.

    Raises:
        OSError: the file cannot be written.
    """
    config, checkpoint = session.config, session.checkpoint
    about = {
        "gid": config.gid,
        "run_id": config.run_id,
        "status": session.phase,
        "records": "digests",
        "total_ticks": config.total_ticks,
        "completed_ticks": session.tick,
        "uledger_last_hash": None if checkpoint is None else checkpoint.head_hash,
    }
    said = {
        **trace_part(session),
        "format": FORMAT,
        "status": session.phase,
        "nid": config.nid,
        "total_ticks": config.total_ticks,
        "manifests_order": list(session.manifests),
        "governance": config.governance.snapshot(),
    }
    with BundleWriter(path, about, step) as bundle:
        bundle.add("inputs.json", json_bytes(documents_of(config)))
        bundle.add("session.json", json_bytes(said))
        bundle.add(DIGESTS, _digest_lines(session.digests()))


def extend_bundle(
    path: str | os.PathLike[str],
    target: str | os.PathLike[str],
    members: Mapping[str, bytes],
    step: Step | None = None,
) -> None:
    """Copy a bundle with more members in it.

    Raises:
        ValueError: the bundle is damaged, or has a member of such a name.
        OSError: a file cannot be read or written.
    """
    with Bundle(path) as source:
        about = {key: value for key, value in source.manifest.items() if key not in ("format", "members")}
        with BundleWriter(target, about, step) as bundle:
            for name in source.members:
                bundle.add(name, source.blocks(name))
            for name, content in members.items():
                bundle.add(name, content)


class Bundle:
    """Reads a bundle.

    Raises:
        ValueError: it isn't one.
        zipfile.BadZipFile: the file is no zip file, or damaged.
        OSError: it cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._zip = zipfile.ZipFile(self.path)
        try:
            self.manifest: dict[str, Any] = self._object(MANIFEST)
            if self.manifest.get("format") != FORMAT or not isinstance(self.manifest.get("members"), dict):
                raise ValueError(f"not an export bundle: {self.path}: its format is not {FORMAT!r}")
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> "Bundle":
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    @property
    def members(self) -> list[str]:
        """The names of the members that the manifest lists and the file has, in the file's order."""
        return [name for name in self._zip.namelist() if name in self.manifest["members"]]

    @property
    def session(self) -> dict[str, Any]:
        """What `session.json` holds."""
        return self._object("session.json")

    @property
    def inputs(self) -> dict[str, Any]:
        """What `inputs.json` holds: the arguments of `session_config_from_documents`."""
        return self._object("inputs.json")

    def blocks(self, name: str) -> Iterator[bytes]:
        """The content of a member in pieces; `ValueError` after the last when it isn't what the manifest says."""
        expected = self.manifest["members"][name]
        hasher, size = hashlib.sha256(), 0
        with self._open(name) as member:
            while piece := member.read(_BLOCK):
                hasher.update(piece)
                size += len(piece)
                yield piece
        if expected != {"sha256": hasher.hexdigest(), "size": size}:
            raise ValueError(f"{self.path}: {name} is not what the manifest says it is")

    def check(self) -> None:
        """Raise `ValueError` unless the members are exactly those of the manifest."""
        names = set(self._zip.namelist()) - {MANIFEST}
        for name in sorted(names.symmetric_difference(self.manifest["members"])):
            where = "the manifest" if name in names else "the file"
            raise ValueError(f"{self.path}: {name} is missing in {where}")
        for name in self.members:
            expected = self.manifest["members"][name]
            if not isinstance(expected, dict) or expected.get("size") != self._zip.getinfo(name).file_size:
                raise ValueError(f"{self.path}: {name} is not what the manifest says it is")
        for name in self.members:
            for _ in self.blocks(name):
                pass

    def lines(self, name: str) -> Iterator[bytes]:
        """The lines of a member, without their ends."""
        with self._open(name) as member:
            while line := member.readline(_LINE_LIMIT):
                yield line.rstrip(b"\n")

    @property
    def has_records(self) -> bool:
        """Whether the records are in it; else there are only their hashes."""
        return HASHES not in self.members and not self.has_digests

    @property
    def has_digests(self) -> bool:
        """Whether there are neither records nor hashes of each tick, but digests."""
        return DIGESTS in self.members

    def tick_texts(self) -> Iterator[TickTexts]:
        """What is hashed of each tick, in a bundle that has the records."""
        names = ("ledgers.jsonl", "p_blocks.jsonl", "data_envelopes.jsonl", "u_ledger.jsonl")
        for texts in zip(*(self.lines(name) for name in names), strict=True):
            yield TickTexts(*texts)

    def _open(self, name: str) -> IO[bytes]:
        return self._zip.open(name)

    def _object(self, name: str) -> dict[str, Any]:
        with self._open(name) as member:
            value = json.loads(member.read(_LINE_LIMIT))
        if not isinstance(value, dict):
            raise ValueError(f"{self.path}: {name} is not an object")
        return value


def documents_of(config: SessionConfigV1) -> dict[str, Any]:
    """The documents from which a session config can be built again by `session_config_from_documents`."""
    governance = config.governance
    run_config = {
        "v": 1,
        "gid": config.nid,
        "run_id": config.run_id,
        "ticks": config.total_ticks,
        "initial_state": list(config.initial_state),
        "windows": plain(config.windows),
        "primary_window_id": config.primary_window_id,
        "governance": plain(governance),
        "nap": governance.meta.get("nap", {}),
        "diagnostics": governance.meta.get("diagnostics", {}),
        "enable_pfna": bool(config.pfna_inputs),
        "logging": plain(config.logging),
        "metrics": plain(config.metrics),
    }
    pfna = None
    if config.pfna_inputs:
        first = config.pfna_inputs[0]
        entries = [
            {
                "pfna_id": entry.pfna_id,
                "tick": entry.tick,
                "values": list(entry.values),
                **({} if entry.description is None else {"description": entry.description}),
            }
            for entry in config.pfna_inputs
        ]
        pfna = {
            "v": 0,
            "pfna_id": "exported",
            "gid": first.gid,
            "run_id": first.run_id,
            "nid": first.nid,
            "entries": entries,
        }
    return {
        "run_config": run_config,
        "topology": plain(config.topology),
        "profile": plain(config.profile),
        "pfna": pfna,
    }


def _session_json(result: SessionRunResult) -> dict[str, Any]:
    ticks = result.tick_result
    return {
        **session_part(result),
        "format": FORMAT,
        "status": result.status,
        "nid": result.config.nid,
        "total_ticks": result.config.total_ticks,
        "chain": ticks.history.chain(result.completed_ticks),
        "error": None,
        "final_state": result.final_state,
        "manifests": {name: plain(manifest) for name, manifest in ticks.manifests.items()},
        "manifests_order": list(ticks.manifests),
        "governance": result.config.governance.snapshot(),
        "governance_budget_usage": ticks.governance_budget_usage,
        "governance_summary": ticks.governance_summary(),
        "lifecycle_envelopes": [plain(each) for each in result.lifecycle_envelopes],
    }


def _digest_lines(digests: Iterable[tuple[int, str]]) -> Iterator[bytes]:
    for tick, digest in digests:
        yield b'{"sha256":"%b","tick":%d}\n' % (digest.encode(), tick)


def _lines(texts: Iterable[bytes]) -> Iterator[bytes]:
    for text in texts:
        yield text + b"\n"


def _records(records: Iterable[Any]) -> Iterator[bytes]:
    for record in records:
        yield record_bytes(record) + b"\n"


def _pieces(content: Iterable[bytes]) -> Iterator[bytes]:
    """The content in pieces of a size that is worth a call, none much larger than `_BLOCK`."""
    gathered: list[bytes] = []
    size = 0
    for each in content:
        gathered.append(each)
        size += len(each)
        if size >= _BLOCK:
            joined = b"".join(gathered)
            for start in range(0, len(joined), _BLOCK):
                yield joined[start : start + _BLOCK]
            gathered, size = [], 0
    if gathered:
        yield b"".join(gathered)
