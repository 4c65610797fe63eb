"""Governance: modes and policies, the gate check of envelopes, the decisions on proposals (section 6)."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gbe_aether.canonical import H, plain
from gbe_aether.reading import an_object, is_int

OPS = ("ADD_NODE", "REMOVE_NODE", "ADD_EDGE", "REMOVE_EDGE", "REWIRE", "TUNE")
LAYERS = ("INGRESS", "DATA", "CTRL", "EGRESS", "GOV")

_MODES = {
    "OFF": ("OFF", "OFF"),
    "OBSERVE": ("OBSERVE", "OBSERVE"),
    "SUGGEST_ONLY": ("OBSERVE", "OBSERVE"),
    "DRY_RUN": ("DRY_RUN", "DRY_RUN"),
    "GOVERNED_APPLY": ("ENFORCE", "GOVERNED_APPLY"),
    "ENFORCE": ("ENFORCE", "GOVERNED_APPLY"),
}


class TopologyPolicyV1(msgspec.Struct, frozen=True):
    """What may be done to a topology. The maxima are recorded and hashed, never enforced."""

    policy_id: str
    max_nodes: int | None = None
    max_edges: int | None = None
    allowed_ops: tuple[str, ...] = OPS
    description: str = ""

    def __post_init__(self) -> None:
        _check_policy(self, "max_nodes", "max_edges")
        if any(op not in OPS for op in self.allowed_ops):
            raise ValueError(f"allowed_ops entries must be one of {sorted(OPS)}")


class BudgetPolicyV1(msgspec.Struct, frozen=True):
    """How much may be proposed and done in a window."""

    policy_id: str
    max_actions_per_window: int | None = None
    max_proposals_per_window: int | None = None
    max_topology_changes: int | None = None
    notes: str = ""

    def __post_init__(self) -> None:
        _check_policy(self, "max_actions_per_window", "max_proposals_per_window", "max_topology_changes")


class SafetyPolicyV1(msgspec.Struct, frozen=True):
    """Invariants that a deployment names. They are recorded and hashed, never enforced."""

    policy_id: str
    invariants: tuple[str, ...]
    severity: str = "HARD"
    description: str = ""

    def __post_init__(self) -> None:
        _check_policy(self)
        if not self.invariants:
            raise ValueError("invariants must contain at least one entry")
        invariants: tuple[object, ...] = self.invariants
        if any(not isinstance(each, str) or not each for each in invariants):
            raise ValueError("invariants must contain non-empty strings")
        if self.severity not in ("HARD", "SOFT"):
            raise ValueError("severity must be one of ['HARD', 'SOFT']")


def _check_policy(policy: msgspec.Struct, *limits: str) -> None:
    if not getattr(policy, "policy_id", None):
        raise ValueError("policy_id must be provided")
    for name in limits:
        value = getattr(policy, name)
        if value is not None and (not is_int(value) or value < 0):
            raise ValueError(f"{name} must be a non-negative integer when provided")


PolicyV1 = TopologyPolicyV1 | BudgetPolicyV1 | SafetyPolicyV1


class GovernanceConfigV1(msgspec.Struct, frozen=True):
    """A governance configuration; the lists are in declaration order.

    The modes are resolved as section 6.1 has it: governance_mode wins where it is said, `SUGGEST_ONLY` is `OBSERVE`.

    Raises:
        ValueError: with the messages of that section.
    """

    governance_mode: str = ""
    codex_action_mode: str = "OFF"
    topology_policies: tuple[TopologyPolicyV1, ...] = ()
    budget_policies: tuple[BudgetPolicyV1, ...] = ()
    safety_policies: tuple[SafetyPolicyV1, ...] = ()
    gid: str | None = None
    run_id: str | None = None
    meta: dict[str, Any] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        mode: object = self.governance_mode or self.codex_action_mode
        modes = _MODES.get(mode.upper()) if isinstance(mode, str) else None
        if modes is None:
            raise ValueError(f"codex_action_mode must be one of {sorted(_MODES)}")
        if modes != (self.governance_mode, self.codex_action_mode):
            msgspec.structs.force_setattr(self, "governance_mode", modes[0])
            msgspec.structs.force_setattr(self, "codex_action_mode", modes[1])
        seen: set[str] = set()
        for policy in self.policies:
            if policy.policy_id in seen:
                raise ValueError(f"Duplicate policy_id detected: {policy.policy_id}")
            seen.add(policy.policy_id)

    @property
    def active(self) -> bool:
        """Whether governance, and with it Codex, runs at all."""
        return self.governance_mode != "OFF"

    @property
    def policies(self) -> tuple[PolicyV1, ...]:
        """All policies."""
        return (*self.topology_policies, *self.budget_policies, *self.safety_policies)

    def payload(self) -> dict[str, Any]:
        """What the policy set hash covers: the modes, and each list by policy_id."""
        return {
            "governance_mode": self.governance_mode,
            "codex_action_mode": self.codex_action_mode,
            "topology_policies": _by_id(self.topology_policies),
            "budget_policies": _by_id(self.budget_policies),
            "safety_policies": _by_id(self.safety_policies),
        }

    @property
    def policy_set_hash(self) -> str:
        """The hash of the policies in force. It exists in every mode."""
        return H(self.payload())

    def snapshot(self) -> dict[str, Any]:
        """The configuration as results show it."""
        return {
            **self.payload(),
            "gid": self.gid,
            "run_id": self.run_id,
            "meta": self.meta,
            "policy_set_hash": self.policy_set_hash,
        }


def _by_id(policies: Sequence[PolicyV1]) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = [plain(policy) for policy in sorted(policies, key=lambda each: each.policy_id)]
    return records


# --- reading -------------------------------------------------------------------------------------


def governance_from_run_config(
    document: dict[str, Any],
    *,
    gid: str,
    run_id: str,
    enable_codex: bool,
    nap: Mapping[str, Any],
    diagnostics: Mapping[str, Any],
) -> GovernanceConfigV1:
    """Resolve the `governance` object of a run config (section 6.1).

    Raises:
        ValueError: with the message of that section.
    """
    doc = dict(document)
    if "governance_mode" not in doc:
        default = "OBSERVE" if enable_codex else "OFF"
        doc["governance_mode"] = doc.get("codex_action_mode", default)
    doc.setdefault("codex_action_mode", doc["governance_mode"])
    doc.setdefault("gid", gid)
    doc.setdefault("run_id", run_id)
    meta = doc.get("meta")
    meta = {} if meta is None else dict(an_object(meta, "governance meta must be an object"))
    meta.setdefault("nap", dict(nap))
    meta.setdefault("diagnostics", dict(diagnostics))
    doc["meta"] = meta
    return governance_from_document(doc)


def governance_from_document(doc: Mapping[str, Any]) -> GovernanceConfigV1:
    """A governance configuration whose modes, ids and meta are all said. Raises `ValueError`."""
    mode = doc.get("governance_mode") or doc.get("codex_action_mode")
    modes = _MODES.get(mode.upper()) if isinstance(mode, str) else None
    if modes is None:
        raise ValueError(f"codex_action_mode must be one of {sorted(_MODES)}")
    for name in ("gid", "run_id"):
        value = doc.get(name)
        if value is not None and (not isinstance(value, str) or not value):
            raise ValueError(f"{name} must be a non-empty string when provided")
    topology = tuple(_topology_policy(each) for each in _policies(doc, "topology_policies"))
    budget = tuple(_budget_policy(each) for each in _policies(doc, "budget_policies"))
    safety = tuple(_safety_policy(each) for each in _policies(doc, "safety_policies"))
    return GovernanceConfigV1(
        *modes, topology, budget, safety, doc.get("gid"), doc.get("run_id"), dict(doc.get("meta") or {})
    )


def _policies(doc: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    value = doc.get(key)
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise ValueError(f"{key} must be a list")
    return [an_object(each, f"{key} entries must be objects") for each in value]


def _policy_id(doc: Mapping[str, Any]) -> str:
    value = doc.get("policy_id")
    text = "" if value is None else str(value)
    if not text:
        raise ValueError("policy_id must be provided")
    return text


def _limits(doc: Mapping[str, Any], *names: str) -> dict[str, int | None]:
    for name in names:
        value = doc.get(name)
        if value is not None and (not is_int(value) or value < 0):
            raise ValueError(f"{name} must be a non-negative integer when provided")
    return {name: doc.get(name) for name in names}


def _topology_policy(doc: Mapping[str, Any]) -> TopologyPolicyV1:
    policy_id = _policy_id(doc)
    limits = _limits(doc, "max_nodes", "max_edges")
    ops = doc.get("allowed_ops", OPS)
    ops = () if ops is None else ops
    if not isinstance(ops, list | tuple):
        raise ValueError("allowed_ops must be a list")
    if any(op not in OPS for op in ops):
        raise ValueError(f"allowed_ops entries must be one of {sorted(OPS)}")
    return TopologyPolicyV1(
        policy_id, limits["max_nodes"], limits["max_edges"], tuple(ops), str(doc.get("description", ""))
    )


def _budget_policy(doc: Mapping[str, Any]) -> BudgetPolicyV1:
    policy_id = _policy_id(doc)
    limits = _limits(doc, "max_actions_per_window", "max_proposals_per_window", "max_topology_changes")
    return BudgetPolicyV1(policy_id, **limits, notes=str(doc.get("notes", "")))


def _safety_policy(doc: Mapping[str, Any]) -> SafetyPolicyV1:
    policy_id = _policy_id(doc)
    invariants = doc.get("invariants")
    invariants = [] if invariants is None else invariants
    if not isinstance(invariants, list | tuple):
        raise ValueError("invariants must be a list")
    if not invariants:
        raise ValueError("invariants must contain at least one entry")
    if any(not isinstance(each, str) or not each for each in invariants):
        raise ValueError("invariants must contain non-empty strings")
    severity = doc.get("severity", "HARD")
    if severity not in ("HARD", "SOFT"):
        raise ValueError("severity must be one of ['HARD', 'SOFT']")
    return SafetyPolicyV1(policy_id, tuple(invariants), severity, str(doc.get("description", "")))


# --- the gate ------------------------------------------------------------------------------------


class GateCheck:
    """The check of DATA envelopes (section 6.2). One DATA envelope stands in each tick."""

    def __init__(self, config: GovernanceConfigV1) -> None:
        allowed = config.meta.get("allowed_layers")
        self._allowed = set(allowed) if allowed else set(LAYERS)
        self._cap = config.meta.get("max_envelopes_per_tick")
        self._suffix = "" if config.governance_mode == "ENFORCE" else "_OBSERVED"

    def reasons(self, layer: str, tick: int) -> list[str]:
        """What speaks against the tick's envelope."""
        reasons = []
        if layer not in self._allowed:
            reasons.append(f"layer {layer} not allowed")
        if self._cap is not None and self._cap < 1:
            reasons.append(f"tick {tick} exceeds cap {self._cap}")
        return reasons

    def status(self, reasons: Sequence[str]) -> str:
        """The verdict."""
        return ("REJECTED" if reasons else "ACCEPTED") + self._suffix


# --- decisions on proposals ------------------------------------------------------------------------


class Verdict(msgspec.Struct, frozen=True):
    """What was decided on a proposal. The same verdict object stands for many proposals."""

    status: str
    governance_status: str
    violated_policies: tuple[str, ...]
    scored: bool
    notes: tuple[str, ...]


class Decisions:
    """Decides on proposals one after the other (section 6.4).

    Every proposal of a session has the same location, all edges, so that the evaluation against
    the policies is the same for all of them; what differs is how much of the budgets is left.
    """

    def __init__(self, config: GovernanceConfigV1, window_id: str, changes: int) -> None:
        self._config = config
        self._window = window_id
        self._changes = changes
        self.seen = 0
        self.accepted = 0
        self.applied = 0
        self._caps = {name: self._cap(name) for name in CAPS}
        self._violated, self._notes = self._evaluate()
        self._shared: dict[Verdict, Verdict] = {}

    def decide(self) -> Verdict:
        """The verdict on the next proposal."""
        verdict = self._decide(self.seen)
        self.seen += 1
        return self._shared.setdefault(verdict, verdict)

    def usage(self) -> dict[str, Any]:
        """How much of the budgets was used."""
        used = {
            "max_proposals_per_window": self.seen,
            "max_actions_per_window": self.accepted,
            "max_topology_changes": self.applied,
        }
        caps = [
            {
                "attr": name,
                "limit": (limit := self._caps[name]),
                "used": used[name],
                "exhausted": limit is not None and used[name] >= limit,
                "policy_id": None if limit is None else self._blamed(name),
            }
            for name in CAPS
        ]
        return {
            "proposals_seen": self.seen,
            "actions_accepted": self.accepted,
            "topology_changes_applied": self.applied,
            "caps": caps,
        }

    def _cap(self, name: str) -> int | None:
        limits = [limit for policy in self._config.budget_policies if (limit := getattr(policy, name)) is not None]
        return min(limits, default=None)

    def _blamed(self, name: str) -> str | None:
        """The first budget policy, in declaration order, whose limit is the cap; else the first of all."""
        budgets = self._config.budget_policies
        for policy in budgets:
            if getattr(policy, name) == self._caps[name]:
                return policy.policy_id
        return budgets[0].policy_id if budgets else None

    def _evaluate(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        violated, notes = set(), []
        for policy in self._config.topology_policies:
            missing = sorted({"ADD_NODE", "ADD_EDGE"}.difference(policy.allowed_ops))
            if missing:
                violated.add(policy.policy_id)
                notes.append(f"Policy {policy.policy_id} does not allow required ops: {missing}")
        for budget in self._config.budget_policies:
            limit = budget.max_topology_changes
            if limit is not None and limit < self._changes:
                violated.add(budget.policy_id)
                notes.append(f"Policy {budget.policy_id} caps topology changes at {limit}")
        return tuple(sorted(violated)), tuple(notes)

    def _decide(self, index: int) -> Verdict:
        proposals, actions, topology = (self._caps[name] for name in CAPS)
        if proposals is not None and index >= proposals:
            note = f"Budget cap max_proposals_per_window={proposals} reached for window {self._window}"
            return Verdict("REJECTED", "SOFT_FAIL", self._blame("max_proposals_per_window"), False, (note,))
        violated, notes = self._violated, self._notes
        scored = bool(self._config.budget_policies)
        status = "HARD_FAIL" if violated else "OK"
        mode = self._config.governance_mode
        if mode == "OBSERVE":
            note = "Governance mode OBSERVE (no actions applied)"
            return Verdict("REJECTED", status, violated, scored, (*notes, note))
        beyond = topology is not None and self.applied + self._changes > topology
        if not violated and (actions is None or self.accepted < actions) and not beyond:
            if mode == "DRY_RUN":
                notes = (*notes, "Governance mode DRY_RUN (action not applied)")
            self.accepted += 1
            self.applied += self._changes
            return Verdict("ACCEPTED", status, violated, scored, notes)
        if not violated:
            if actions is not None:
                notes = (*notes, f"Budget cap max_actions_per_window={actions} reached for window {self._window}")
            if beyond:
                notes = (*notes, f"Budget cap max_topology_changes={topology} reached for window {self._window}")
            violated = self._blame("max_topology_changes" if beyond else "max_actions_per_window")
        return Verdict("REJECTED", status, violated, scored, notes)

    def _blame(self, name: str) -> tuple[str, ...]:
        blamed = self._blamed(name)
        return () if blamed is None else (blamed,)


CAPS = ("max_proposals_per_window", "max_actions_per_window", "max_topology_changes")
