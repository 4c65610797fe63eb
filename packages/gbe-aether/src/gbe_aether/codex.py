"""Codex Eterna: patterns that occurred, and proposals to place them (specification, section 7)."""

import hashlib
import heapq
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

from gbe_aether.governance import Decisions, Verdict
from gbe_aether.history import History
from gbe_aether.records import CodexMotifV1, CodexProposalV1

PATTERN = "edge_flux_pattern_v1"

_STRETCH = 32
"""How many edges of a signature are compared at first."""

_HELD = 1_000_000
"""About how many differences are in memory for it."""

_BLOCK = 4096
"""How many signatures are sorted in one go."""

_Key = tuple[int, ...] | bytes

_Found = list[int]
"""How often a signature occurred, its first and its last tick."""

_Keyed = tuple[list[int], _Found]


class Occurrences:
    """How often each signature occurred. A signature is the tick's differences, from which the fluxes follow."""

    def __init__(self) -> None:
        self._by_key: dict[_Key, list[int]] = {}
        self._last: tuple[object, list[int]] | None = None

    def __len__(self) -> int:
        return len(self._by_key)

    def count(self, tick: int, differences: Any) -> None:
        """Count the signature of a tick; the same object as in the tick before is known by that."""
        if self._last is not None and self._last[0] is differences:
            found = self._last[1]
        else:
            found = self._by_key.setdefault(_key(differences), [0, tick, tick])
            self._last = differences, found
        found[0] += 1
        found[2] = tick

    def found(self) -> list[_Found]:
        """Count, first tick and last tick of each signature, in no particular order."""
        return list(self._by_key.values())


def _key(differences: Any) -> _Key:
    if len(differences) <= 16:
        return tuple(map(int, differences))
    if not isinstance(differences, list):
        return hashlib.sha256(differences.tobytes()).digest()
    try:
        content = array("q", differences).tobytes()
    except OverflowError:
        content = repr(tuple(differences)).encode()
    return hashlib.sha256(content).digest()


class Codex:
    """The motifs and proposals of a session. Only counts and verdicts are held; records are made when read."""

    def __init__(self, history: History, occurrences: Occurrences) -> None:
        self._history = history
        self._edges = [edge.e_id for edge in history.config.topology.edges]
        self._found = occurrences.found()
        self._proposed: list[int] = []
        self._verdicts: list[Verdict] = []

    @property
    def motifs(self) -> int:
        """How many motifs there are."""
        return len(self._found)

    @property
    def proposals(self) -> int:
        """How many proposals were decided on."""
        return len(self._verdicts)

    @property
    def verdicts(self) -> Sequence[Verdict]:
        """The verdicts in the order of the proposals."""
        return self._verdicts

    def learn(self) -> Iterator[None]:
        """Put the motifs into their order, a bounded piece of work between yields.

        The order is that of the lists of differences. They are compared a stretch of edges at a time,
        so that no more than a stretch of each is in memory, and further only where they are equal.
        """
        ordered: list[_Found] = []
        # Groups that are equal so far, the next one last, each with the number of edges looked at.
        pending = [(self._found, 0)]
        while pending:
            group, start = pending.pop()
            if len(group) == 1 or start >= len(self._edges):
                ordered += group
                continue
            # Twice as far each time, so that a long equal beginning doesn't take many readings.
            stop = start + max(_STRETCH, min(start, _HELD // len(group)))
            keyed: list[_Keyed] = []
            for found in sorted(group, key=_first_tick):
                keyed.append((self._history.differences(found[1], start, stop), found))
                yield
            groups: list[list[_Found]] = []
            last: list[int] | None = None
            blocks: list[list[_Keyed]] = []
            for first in range(0, len(keyed), _BLOCK):
                blocks.append(sorted(keyed[first : first + _BLOCK], key=_signature))
                yield
            for key, found in heapq.merge(*blocks, key=_signature):
                if key == last:
                    groups[-1].append(found)
                else:
                    groups.append([found])
                    last = key
                yield
            pending += [(each, stop) for each in reversed(groups)]
        self._found = ordered

    def propose(self, decisions: Decisions) -> Iterator[None]:
        """Decide on a proposal for each motif, in the text order of their ids."""
        # Numbers of one width are in text order as they are; a wider one comes between them.
        count, ends = self.motifs, [0]
        while ends[-1] < count:
            ends.append(min(count, 9999 if len(ends) == 1 else 10 * ends[-1] + 9))
        for index in heapq.merge(*map(range, ends, ends[1:]), key=_motif_id):
            self._proposed.append(index)
            self._verdicts.append(decisions.decide())
            yield

    def motif(self, index: int) -> CodexMotifV1:
        """The motif of an index."""
        count, first, last = self._found[index]
        config, outcome = self._history.config, self._history.outcome(first)
        own = 2 * len(self._edges)
        return CodexMotifV1(
            created_at_tick=first,
            last_updated_tick=last,
            library_id=f"{config.run_id}_LIB",
            mdl_stats={"L_self": own, "L_usage": count, "L_total": own + count, "delta_vs_baseline": -count},
            meta={"runs": [config.run_id]},
            motif_id=_motif_id(index),
            pattern_descriptor={
                "type": PATTERN,
                "edge_ids": self._edges,
                "du_signature": [int(each) for each in outcome.du],
                "f_e_signature": [int(each) for each in outcome.fluxes],
            },
            profile=config.profile.name,
            source_gid=config.gid,
            source_window_id=config.primary_window_id,
            usage_stats={"usage_count": count, "first_tick": first, "last_tick": last},
        )

    def proposal(self, index: int) -> CodexProposalV1:
        """The proposal of an index, decided."""
        verdict = self._verdicts[index]
        motif = self._proposed[index]
        count, _, last = self._found[motif]
        config = self._history.config
        return CodexProposalV1(
            action="PLACE",
            budget_effect={},
            created_at_tick=last,
            evaluated_at_tick=self._history.ticks,
            expected_effect={"delta_L_total": -count, "notes": PATTERN},
            gid=config.gid,
            governance_notes={"notes": list(verdict.notes)},
            governance_scores={"topology_change_count": float(len(self._edges))} if verdict.scored else {},
            governance_status=verdict.governance_status,
            library_id=f"{config.run_id}_LIB",
            meta={"runs": [config.run_id]},
            motif_id=_motif_id(motif),
            proposal_id=f"PROPOSAL_{index + 1:04d}",
            status=verdict.status,
            target_location={"edge_ids": self._edges, "profile": config.profile.name},
            target_window_id=config.primary_window_id,
            violated_policies=list(verdict.violated_policies),
        )

    def accepted(self) -> list[int]:
        """The indices of the accepted proposals."""
        return [index for index, verdict in enumerate(self._verdicts) if verdict.status == "ACCEPTED"]


def _first_tick(found: _Found) -> int:
    return found[1]


def _signature(pair: _Keyed) -> list[int]:
    return pair[0]


def _motif_id(index: int) -> str:
    return f"MOTIF_{index + 1:04d}"
