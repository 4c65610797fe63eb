"""The run config: which graph, which profile, how long, what is observed (specification, section 1.2)."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from gbe_aether.documents import read_document, resolve
from gbe_aether.governance import GovernanceConfigV1, governance_from_run_config
from gbe_aether.metrics import MetricsConfigV1
from gbe_aether.reading import an_object, is_int, required
from gbe_aether.structured_log import LoggingConfigV1, logging_from_document

SOURCES = ("fluxes", "post_u", "post_u_deltas", "pre_u", "prev_chain")
SCHEMES = ("R", "GR", "ID")


class RunStreamV1(msgspec.Struct, frozen=True):
    """A stream of a window: what is recorded each tick, and how its length is estimated. Raises `ValueError`."""

    name: str
    source: str
    scheme_hint: str | None = None
    description: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("Run window stream must provide a name")
        if self.source not in SOURCES:
            raise ValueError(f"Stream source must be one of {list(SOURCES)}")
        if self.scheme_hint is not None and self.scheme_hint not in SCHEMES:
            raise ValueError("scheme_hint must be one of 'R', 'GR', or 'ID'")


class RunWindowV1(msgspec.Struct, frozen=True):
    """A Press window over the ticks `start_tick`..`end_tick`, both included. Raises `ValueError`."""

    window_id: str
    apx_name: str
    start_tick: int
    end_tick: int
    streams: tuple[RunStreamV1, ...] = ()
    aeon_window_id: str | None = None

    def __post_init__(self) -> None:
        if not self.window_id:
            raise ValueError("window_id must be provided")
        if not self.apx_name:
            raise ValueError("apx_name must be provided")
        if self.start_tick < 1:
            raise ValueError("start_tick must be >= 1")
        if self.end_tick < self.start_tick:
            raise ValueError("end_tick must be >= start_tick")


class RunConfigV1(msgspec.Struct, frozen=True):
    """A run config as its document says it, with defaults filled in.

    The paths are absolute and without symbolic links; they are empty when the config was built from
    documents in memory. Raises `ValueError` for what a document is refused for.
    """

    v: int
    gid: str
    run_id: str
    topology_path: str
    profile_path: str
    ticks: int
    initial_state: tuple[int, ...]
    windows: tuple[RunWindowV1, ...]
    primary_window_id: str
    nap: dict[str, Any] = msgspec.field(default_factory=dict)
    governance: GovernanceConfigV1 = msgspec.field(default_factory=GovernanceConfigV1)
    enable_codex: bool = False
    enable_pfna: bool = False
    pfna_path: str | None = None
    diagnostics: dict[str, Any] = msgspec.field(default_factory=dict)
    logging: LoggingConfigV1 = msgspec.field(default_factory=LoggingConfigV1)
    metrics: MetricsConfigV1 = msgspec.field(default_factory=MetricsConfigV1)

    def __post_init__(self) -> None:
        _check_names(self.v, self.gid, self.run_id)
        _check_course(self.ticks, self.initial_state, self.windows, self.primary_window_id)


_MISSING = "Missing required field: {}"
_MISSING_WINDOW = "Missing required window field: {}"


def load_run_config(path: str | os.PathLike[str]) -> RunConfigV1:
    """Read a run config from its file. Its paths are relative to the file's folder.

    Raises:
        ValueError: with the message of section 1.2.
        TypeError: for `null` where an object or a number is wanted, as section 1.2 has it.
        OSError, json.JSONDecodeError: the file cannot be read.
    """
    document = read_document(path, "Run config")
    return run_config_from_document(document, resolve(Path(path), "Run config").parent)


def run_config_from_document(document: Any, base: Path | None) -> RunConfigV1:
    """The run config in a document.

    Args:
        document: The JSON object.
        base: The folder its paths are relative to. `None` for a config whose topology, profile and
            PFNA document come along with it: then it needs no paths, and none is looked at.

    Raises:
        ValueError, TypeError: as `load_run_config`.
    """
    doc = an_object(document, "Run config must be an object")
    version = int(required(doc, "v", _MISSING))
    gid = str(required(doc, "gid", _MISSING))
    run_id = str(required(doc, "run_id", _MISSING))
    paths = {name: _path(doc, name, base) for name in ("topology_path", "profile_path")}
    ticks = int(required(doc, "ticks", _MISSING))
    state = _state(doc.get("initial_state"))
    windows = _windows(doc.get("windows"))
    primary = str(required(doc, "primary_window_id", _MISSING))
    declared = dict(doc.get("governance", {}))
    nap, diagnostics = dict(doc.get("nap", {})), dict(doc.get("diagnostics", {}))
    enable_codex, enable_pfna = bool(doc.get("enable_codex", False)), bool(doc.get("enable_pfna", False))
    pfna_path = doc.get("pfna_path")
    if pfna_path is not None and not isinstance(pfna_path, str):
        raise ValueError("pfna_path must be a string when provided")
    logging = logging_from_document(doc.get("logging", {}))
    metrics = an_object(doc.get("metrics", {}), "metrics must be an object")
    _check_names(version, gid, run_id)
    for name, file in paths.items():
        _check_file(name, file)
    _check_course(ticks, state, windows, primary)
    governance = governance_from_run_config(
        declared,
        gid=gid,
        run_id=run_id,
        enable_codex=enable_codex,
        nap=nap,
        diagnostics=diagnostics,
    )
    pfna_file = None
    if base is not None:
        if enable_pfna and not pfna_path:
            raise ValueError("enable_pfna is true but pfna_path is missing")
        if pfna_path:
            pfna_file = resolve(base / pfna_path, "pfna_path")
            _check_file("pfna_path", pfna_file)
    return RunConfigV1(
        version,
        gid,
        run_id,
        str(paths["topology_path"] or ""),
        str(paths["profile_path"] or ""),
        ticks,
        state,
        windows,
        primary,
        nap,
        governance,
        enable_codex,
        enable_pfna,
        None if pfna_file is None else str(pfna_file),
        diagnostics,
        logging,
        MetricsConfigV1(bool(metrics.get("enabled", False))),
    )


def _check_names(version: int, gid: str, run_id: str) -> None:
    if version != 1:
        raise ValueError("RunConfig_v1 requires v == 1")
    if not gid:
        raise ValueError("gid must be provided")
    if not run_id:
        raise ValueError("run_id must be provided")


def _check_course(ticks: int, state: Sequence[int], windows: Sequence[RunWindowV1], primary: str) -> None:
    if ticks < 1:
        raise ValueError("ticks must be >= 1")
    if not state:
        raise ValueError("initial_state must be non-empty")
    if not windows:
        raise ValueError("At least one window must be provided")
    if all(window.window_id != primary for window in windows):
        raise ValueError("primary_window_id must reference a declared window")


def _path(doc: dict[str, Any], name: str, base: Path | None) -> Path | None:
    if base is None:
        return None
    text = str(required(doc, name, _MISSING))
    if not text:
        raise ValueError(f"{name} must be provided")
    return resolve(base / text, name)


def _check_file(name: str, file: Path | None) -> None:
    if file is None:
        return
    try:
        exists, is_file = file.exists(), file.is_file()
    except (OSError, ValueError):
        exists = is_file = False
    if not exists:
        raise ValueError(f"{name} does not exist: {file}")
    if not is_file:
        raise ValueError(f"{name} must be a file: {file}")


def _state(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError("initial_state must be a sequence of integers")
    if not all(is_int(each) for each in value):
        raise ValueError("initial_state must contain integers only")
    return tuple(value)


def _windows(value: Any) -> tuple[RunWindowV1, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError("windows must be a list")
    return tuple(_window(each) for each in value)


def _window(value: Any) -> RunWindowV1:
    doc = an_object(value, "Window entry must be an object")
    window_id = str(required(doc, "window_id", _MISSING_WINDOW))
    apx_name = str(required(doc, "apx_name", _MISSING_WINDOW))
    start = int(required(doc, "start_tick", _MISSING_WINDOW))
    end = int(required(doc, "end_tick", _MISSING_WINDOW))
    streams = doc.get("streams", [])
    if not isinstance(streams, list | tuple):
        raise ValueError("window.streams must be a list if provided")
    aeon = doc.get("aeon_window_id")
    if aeon is not None and not isinstance(aeon, str):
        raise ValueError("aeon_window_id must be a string when provided")
    parsed = tuple(_stream(each) for each in streams)
    return RunWindowV1(window_id, apx_name, start, end, parsed, aeon)


def _stream(value: Any) -> RunStreamV1:
    doc = an_object(value, "Stream entry must be an object")
    name = str(doc.get("name", "") if doc.get("name") is not None else "")
    source = str(doc.get("source", ""))
    return RunStreamV1(name, source, doc.get("scheme_hint"), str(doc.get("description", "")))
