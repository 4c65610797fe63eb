"""The one place where this service meets the engine's library: to check and compose documents, and to compare results.

It never runs a session: that is the Operative's. The library is imported when it is needed first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trinity_gate.governance import caps


class Refused(ValueError):
    """The engine does not take these documents; the text is its own."""


@dataclass(frozen=True, slots=True)
class Documents:
    """A session's inputs as JSON values. `pfna`: None where there is no document."""

    run_config: Mapping[str, Any]
    topology: Mapping[str, Any]
    profile: Mapping[str, Any]
    pfna: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Governance:
    """A governance as the engine resolves it."""

    mode: str
    codex_action_mode: str
    policy_set_hash: str
    budget_knobs: Mapping[str, int]

    def snapshot(self) -> dict[str, Any]:
        """As the API shows it."""
        return {
            "mode": self.mode,
            "codex_action_mode": self.codex_action_mode,
            "budget_knobs": dict(self.budget_knobs),
            "policy_set_hash": self.policy_set_hash,
        }


def shipped_library() -> Path:
    """The directory with the fixtures that the engine ships; never written to."""
    from gbe_aether.fixtures import registry_path

    return registry_path().parent.parent


def shipped_governance() -> dict[str, Any]:
    """The governance base that the engine ships: the service's at its first start."""
    from gbe_aether.fixtures import governance_base_path

    found: dict[str, Any] = json.loads(governance_base_path().read_bytes())
    return found


def check_registry(document: Any) -> None:
    """Raises `Refused`."""
    from gbe_aether import registry_from_document

    try:
        registry_from_document(document)
    except (ValueError, TypeError) as error:
        raise Refused(str(error)) from error


def check(documents: Documents) -> Governance:
    """Build the session's configuration as a run would; returns its governance. Raises `Refused`."""
    from gbe_aether import session_config_from_documents

    try:
        session = session_config_from_documents(
            dict(documents.run_config),
            dict(documents.topology),
            dict(documents.profile),
            None if documents.pfna is None else dict(documents.pfna),
        )
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise Refused(str(error) or type(error).__name__) from error
    found = session.governance
    return _governance(found, documents.run_config.get("governance") or {})


def governance_of(layer: Mapping[str, Any]) -> Governance:
    """A layer that says both modes, resolved by itself. Raises `Refused`."""
    from gbe_aether import governance_from_document

    try:
        found = governance_from_document(layer)
    except (ValueError, TypeError) as error:
        raise Refused(str(error)) from error
    return _governance(found, layer)


def _governance(found: Any, layer: Mapping[str, Any]) -> Governance:
    return Governance(found.governance_mode, found.codex_action_mode, found.policy_set_hash, caps(layer))
