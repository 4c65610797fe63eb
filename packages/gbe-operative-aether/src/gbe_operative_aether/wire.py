"""What an `aether-session` task and whoever steers it say to each other: params, progress, results, artifact keys.

The one description of it, for the Operative that runs sessions and for those who start and watch them. It imports
nothing heavy: neither the engine nor the worker.

    params    the session's documents, final (`session_params`): nobody merges or overrides anything after that
    progress  `Report`, as the `data` of `TaskProgress` (kind `step`): at most ten per second, one at once after each
              change of state and each step, and at least one in `SIGN_OF_LIFE` seconds, paused or not; it may be lost
    control   `pause`, `resume`, `step` (one tick), `cancel`: `gbe_jobs_domain.payloads.TaskControl`
    result    `Outcome`, as the `data` of the terminal where the session completed, and always in the artifact store

However a session ends (completed, cancelled, failed), the Operative leaves what there is under keys that anybody can
make from the job and the task: first the log, then the bundle, then the `Outcome`, whose presence says that nothing
more follows. The Oracle ends a cancelled job without waiting for its tasks, so this is also the only place to look at
then; of a session whose Operative was killed there may be nothing.

Sources: section 3 of the architecture (progress, control, edge data), `operator-service.md` 3.4 and 4.3.1 (pillars).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw, Struct

from gbe_jobs_domain import subjects
from gbe_jobs_domain.edges import Ref

TASK_TYPE: Final = "aether-session"

# --- params ---------------------------------------------------------------------------------------------------------

INLINE_DOCUMENTS: Final = 192 * 1024
"""Bytes of all documents together up to which they travel as params; larger ones go as one artifact."""

DOCUMENT_NAMES: Final = ("run_config", "topology", "profile", "pfna")

SESSION_REF: Final = "session_ref"
"""The param with a `store://` URI of one JSON object that has the documents under `DOCUMENT_NAMES`."""

PROGRESS_INTERVAL: Final = "progress_interval_ms"
"""The param with the milliseconds between two reports, 100 to 60,000."""

DEFAULT_PROGRESS_INTERVAL: Final = 100

SIGN_OF_LIFE: Final = 2.0
"""Seconds in which a session that lives reports at least once, also while it is paused or finishing."""

START_PAUSED: Final = "start_paused"
"""The param that is `true` where the session waits before its first tick, until `resume` or `step`."""


class Documents(Struct, frozen=True, omit_defaults=True):
    """A session's inputs as JSON documents, each as its own text: integers of any size survive.

    They are final: `run_config.run_id` is the run's, a PFNA document carries the same `run_id`, governance is merged.
    `topology_path`, `profile_path`, `pfna_path` in the run config are not looked at. `logging.destination` and
    `file_path` neither: a session never writes where a document says.
    """

    run_config: Raw
    topology: Raw
    profile: Raw
    pfna: Raw = Raw(b"null")


_documents = msgspec.json.Decoder(Documents)
_encoder = msgspec.json.Encoder()


def encode_documents(documents: Documents) -> bytes:
    """The object that `session_ref` refers to."""
    return _encoder.encode(documents)


def decode_documents(body: bytes) -> Documents:
    """Raises `msgspec.DecodeError`."""
    return _documents.decode(body)


def inline_params(documents: Documents) -> dict[str, str] | None:
    """The documents as params; None where they are too large for that and go by `session_ref`."""
    texts = {name: bytes(getattr(documents, name)) for name in DOCUMENT_NAMES}
    if sum(map(len, texts.values())) > INLINE_DOCUMENTS:
        return None
    return {name: text.decode() for name, text in texts.items() if text and text != b"null"}


def documents_in(params: Mapping[str, str]) -> Documents | None:
    """The documents among the params; None where they are not there (`session_ref`, or a scenario of the host's).

    Raises `ValueError` naming what is missing where only some are.
    """
    found = [name for name in DOCUMENT_NAMES if name in params]
    if not found:
        return None
    missing = [name for name in ("run_config", "topology", "profile") if name not in params]
    if missing:
        raise ValueError(f"missing param: {', '.join(missing)} (a session has run_config, topology and profile)")
    texts = {name: Raw(params[name].encode()) for name in found}
    return Documents(**texts)


# --- progress -------------------------------------------------------------------------------------------------------

MAX_REPORT: Final = 5_600
"""Bytes of an encoded `Report`: ten of them and their envelopes stay within a task's 64 KiB per second. What has to
give way is the log's entries (those left out are counted by their numbers), never the rest."""

MAX_NODES: Final = 200
"""Values of nodes in a report."""

MAX_POINTS: Final = 60
"""Points of the flux series in a report."""

_LARGEST_NUMBER: Final = (1 << 53) - 1

Figure = int | str
"""An integer of the engine: a number as long as every reader of JSON can hold it (±(2^53 - 1)), else decimal text."""


def figure(value: int) -> Figure:
    """How an integer of the engine is written in reports and outcomes."""
    return value if -_LARGEST_NUMBER <= value <= _LARGEST_NUMBER else str(value)


class SessionState(StrEnum):
    """`finishing`: the ticks are over (or it was cancelled) and the results are being made and stored."""

    RUNNING = "running"
    PAUSED = "paused"
    FINISHING = "finishing"


class AetherFigures(Struct, frozen=True, omit_defaults=True):
    """The gate. `envelopes`: NAP envelopes so far (INGRESS and DATA while it runs, all of them at the end)."""

    ticks: int = 0
    envelopes: int = 0


class PressFigures(Struct, frozen=True, omit_defaults=True):
    """`windows`: declared; `windows_open`: those whose ticks include the current one; `manifests` at the end."""

    windows: int = 0
    windows_open: int = 0
    streams: int = 0
    manifests: int = 0


class UmxFigures(Struct, frozen=True, omit_defaults=True):
    """`ledgers`: tick ledgers; `total`: the sum of all nodes; `sum_abs_flux`: of the last tick; `ledger_entries`:
    entries of the U-ledger, which is made at the end."""

    ledgers: int = 0
    total: Figure = 0
    sum_abs_flux: Figure = 0
    ledger_entries: int = 0


class LoomFigures(Struct, frozen=True, omit_defaults=True):
    """`chain`: the last C_t."""

    p_blocks: int = 0
    i_blocks: int = 0
    chain: Figure = 0


class CodexFigures(Struct, frozen=True, omit_defaults=True):
    """`mode`: the resolved codex_action_mode. `motifs`: distinct signatures so far, motifs at the end."""

    mode: str = ""
    motifs: int = 0
    proposals: int = 0
    accepted: int = 0


class Pillars(Struct, frozen=True, omit_defaults=True):
    """A few figures of each pillar."""

    aether: AetherFigures = AetherFigures()
    press: PressFigures = PressFigures()
    umx: UmxFigures = UmxFigures()
    loom: LoomFigures = LoomFigures()
    codex: CodexFigures = CodexFigures()


class SessionReport(Struct, frozen=True, omit_defaults=True):
    """Where a session is. `tick`: ticks completed; `ticks_per_s`: over the time since the last report, 0 while paused.

    `nodes`: the state after that tick, the first `MAX_NODES` of `nodes_total`. `flux`: points `(tick, sum of |f_e|)`
    of the whole run so far, at most `MAX_POINTS`, thinned out as it goes on, the last one always the newest.
    """

    state: SessionState
    tick: Annotated[int, Meta(ge=0)]
    ticks_total: Annotated[int, Meta(ge=1)]
    sum_abs_flux: Figure = 0
    ticks_per_s: float = 0.0
    nodes: list[Figure] = []
    nodes_total: int = 0
    flux: list[tuple[int, Figure]] = []
    pillars: Pillars = Pillars()


class LogSlice(Struct, frozen=True, omit_defaults=True):
    """Log entries since the last report. Entries are numbered from 0 within the session, `first_index` is the first
    one's number, so a gap shows. `entries`: each a JSON object as the engine logs it (engine spec, section 10).

    `total`: how many entries the session has logged, those that are never reported included.
    """

    first_index: Annotated[int, Meta(ge=0)] = 0
    entries: list[Raw] = []
    total: Annotated[int, Meta(ge=0)] = 0


class Report(Struct, frozen=True, omit_defaults=True):
    """The `data` of a progress message."""

    session: SessionReport
    log: LogSlice = LogSlice()


_report = msgspec.json.Decoder(Report)


def decode_report(data: bytes | Raw) -> Report:
    """Raises `msgspec.DecodeError`."""
    return _report.decode(data)


# --- results --------------------------------------------------------------------------------------------------------


class SessionResult(StrEnum):
    """How a session ended. `failed`: the engine raised; `Outcome.error` has its text."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Outcome(Struct, frozen=True, omit_defaults=True):
    """What came of a session.

    `metrics`: the engine's metrics snapshot of the ticks that were done, where metrics are enabled. `last_hash`: of the
    last U-ledger entry, where there is one. A session stopped after a million ticks has neither: both rest on its
    ledger. `log_entries`: how many the log has. `log`, `bundle`: None where there is none (logging disabled; not a tick
    done). `session`: the last report.
    """

    result: SessionResult
    ticks_completed: Annotated[int, Meta(ge=0)]
    ticks_total: Annotated[int, Meta(ge=1)]
    session: SessionReport
    error: str = ""
    metrics: dict[str, int | str] | None = None
    policy_set_hash: str = ""
    last_hash: str = ""
    manifest_check: Figure | None = None
    log_entries: int = 0
    log: Ref | None = None
    bundle: Ref | None = None


_outcome = msgspec.json.Decoder(Outcome)


def encode_outcome(outcome: Outcome) -> bytes:
    """The artifact under `outcome_key`, and what `data` of the terminal holds."""
    return _encoder.encode(outcome)


def decode_outcome(body: bytes | Raw) -> Outcome:
    """Raises `msgspec.DecodeError`."""
    return _outcome.decode(body)


LOG_MEDIA_TYPE: Final = "application/gzip"
BUNDLE_MEDIA_TYPE: Final = "application/zip"


def log_key(job_id: str, task_id: str) -> str:
    """The complete log: gzip of one JSON object per line, in the order of their numbers."""
    return subjects.artifact_key(job_id, task_id, "log.jsonl.gz")


def bundle_key(job_id: str, task_id: str) -> str:
    """The zip that `gbe-aether verify` takes. Of a session that was stopped or failed it has what there is; of one that
    did no tick, or whose process died, there is none."""
    return subjects.artifact_key(job_id, task_id, "bundle.zip")


def outcome_key(job_id: str, task_id: str) -> str:
    """The `Outcome`, written last."""
    return subjects.artifact_key(job_id, task_id, "outcome.json")


def documents_key(job_id: str) -> str:
    """Where whoever submits puts documents that are too large to be params."""
    return subjects.artifact_key(job_id, "session.json")
