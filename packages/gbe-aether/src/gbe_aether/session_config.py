"""The session config: everything a run needs, checked against each other (specification, section 1.2)."""

import os
from collections.abc import Sequence
from typing import Any

import msgspec

from gbe_aether.governance import GovernanceConfigV1
from gbe_aether.metrics import MetricsConfigV1
from gbe_aether.pfna import PFNAInputV1, load_pfna, pfna_from_document
from gbe_aether.press import DEFAULT_STREAMS
from gbe_aether.profile import ProfileConfigV1, load_profile_config, profile_from_document
from gbe_aether.reading import is_int
from gbe_aether.registry import load_scenario_registry
from gbe_aether.run_config import RunConfigV1, RunStreamV1, RunWindowV1, load_run_config, run_config_from_document
from gbe_aether.structured_log import LoggingConfigV1
from gbe_aether.topology import TopologyProfileV1, load_topology_profile, topology_from_document


class SessionConfigV1(msgspec.Struct, frozen=True):
    """A session, ready to run. To vary one, use `msgspec.structs.replace`.

    Raises:
        ValueError: the parts don't go together, with the messages of section 1.2.
    """

    topology: TopologyProfileV1
    profile: ProfileConfigV1
    initial_state: tuple[int, ...]
    total_ticks: int
    windows: tuple[RunWindowV1, ...]
    primary_window_id: str
    run_id: str
    nid: str
    pfna_inputs: tuple[PFNAInputV1, ...] = ()
    governance: GovernanceConfigV1 = msgspec.field(default_factory=GovernanceConfigV1)
    logging: LoggingConfigV1 = msgspec.field(default_factory=LoggingConfigV1)
    metrics: MetricsConfigV1 = msgspec.field(default_factory=MetricsConfigV1)
    press_default_streams: tuple[RunStreamV1, ...] = DEFAULT_STREAMS

    def __post_init__(self) -> None:
        if not is_int(self.total_ticks) or self.total_ticks < 1:
            raise ValueError("ticks must be >= 1")
        if not all(map(is_int, self.initial_state)):
            raise ValueError("initial_state must contain integers only")
        if not self.windows:
            raise ValueError("At least one window must be provided")
        if all(window.window_id != self.primary_window_id for window in self.windows):
            raise ValueError("primary_window_id must reference a declared window")
        _check_parts(self.topology, self.profile, self.initial_state, self.windows, self.total_ticks)
        if any(len(entry.values) != self.topology.N for entry in self.pfna_inputs):
            raise ValueError("PFNA entry values length must match expected_length")

    @property
    def gid(self) -> str:
        """The graph's id."""
        return self.topology.gid


def load_run_session_config(source: RunConfigV1 | str | os.PathLike[str]) -> SessionConfigV1:
    """Build the session config of a run config, or of the file that holds one.

    Raises:
        ValueError: with the messages of sections 1.2 to 1.5, the cross checks included.
        TypeError: for `null` where section 1.2 has it.
        OSError, json.JSONDecodeError: a file cannot be read.
    """
    config = source if isinstance(source, RunConfigV1) else load_run_config(source)
    topology = load_topology_profile(config.topology_path)
    profile = load_profile_config(config.profile_path)
    _cross_check(config, topology, profile)
    inputs: tuple[PFNAInputV1, ...] = ()
    if config.enable_pfna and config.pfna_path:
        inputs = load_pfna(config.pfna_path, topology.N)
    return _session_config(config, topology, profile, inputs)


def load_scenario_session_config(registry: str | os.PathLike[str], scenario_id: str) -> SessionConfigV1:
    """Build the session config of a scenario in a registry file.

    Raises:
        KeyError: "Scenario not found: X".
        ValueError, TypeError, OSError, json.JSONDecodeError: as `load_run_session_config`.
    """
    return load_run_session_config(load_scenario_registry(registry).run_config_file(scenario_id))


def session_config_from_documents(
    run_config: Any, topology: Any, profile: Any, pfna: Any | None = None
) -> SessionConfigV1:
    """Build a session config from documents in memory, with the checks of the loaders.

    Args:
        run_config: A run config's document. Its `topology_path`, `profile_path` and `pfna_path` may be
            left out; nothing is looked up by them.
        topology: The topology's document.
        profile: The profile's document.
        pfna: The PFNA document; needed when the run config has `enable_pfna`, ignored otherwise.

    Raises:
        ValueError, TypeError: as `load_run_session_config`.
    """
    config = run_config_from_document(run_config, None)
    if config.enable_pfna and pfna is None:
        raise ValueError("enable_pfna is true but pfna_path is missing")
    graph = topology_from_document(topology)
    numbers = profile_from_document(profile)
    _cross_check(config, graph, numbers)
    inputs = pfna_from_document(pfna, graph.N) if config.enable_pfna else ()
    return _session_config(config, graph, numbers, inputs)


def _cross_check(config: RunConfigV1, topology: TopologyProfileV1, profile: ProfileConfigV1) -> None:
    if config.gid != topology.gid:
        raise ValueError("RunConfig gid must match topology gid")
    _check_parts(topology, profile, config.initial_state, config.windows, config.ticks)


def _check_parts(
    topology: TopologyProfileV1,
    profile: ProfileConfigV1,
    state: Sequence[int],
    windows: Sequence[RunWindowV1],
    ticks: int,
) -> None:
    if profile.SC != topology.SC:
        raise ValueError("Profile SC must match topology SC")
    if len(state) != topology.N:
        raise ValueError("initial_state length must match topology N")
    for window in windows:
        if window.end_tick > ticks:
            raise ValueError("window end_tick cannot exceed configured ticks")


def _session_config(
    config: RunConfigV1, topology: TopologyProfileV1, profile: ProfileConfigV1, inputs: tuple[PFNAInputV1, ...]
) -> SessionConfigV1:
    return SessionConfigV1(
        topology=topology,
        profile=profile,
        initial_state=config.initial_state,
        total_ticks=config.ticks,
        windows=config.windows,
        primary_window_id=config.primary_window_id,
        run_id=config.run_id,
        nid=config.gid,
        pfna_inputs=inputs,
        governance=config.governance,
        logging=config.logging,
        metrics=config.metrics,
    )


def with_ticks(config: SessionConfigV1, ticks: int) -> SessionConfigV1:
    """The session over another number of ticks.

    Windows that ended with the session still do, and those that would end after it end with it.

    Raises:
        ValueError: there are no ticks, or a window would begin after the last.
    """
    if ticks < 1:
        raise ValueError("ticks must be >= 1")
    windows = []
    for window in config.windows:
        if window.start_tick > ticks:
            raise ValueError(
                f"window {window.window_id!r} starts at tick {window.start_tick}, after the last tick {ticks}"
            )
        whole = window.end_tick == config.total_ticks
        windows.append(msgspec.structs.replace(window, end_tick=ticks if whole else min(window.end_tick, ticks)))
    return msgspec.structs.replace(config, total_ticks=ticks, windows=tuple(windows))
