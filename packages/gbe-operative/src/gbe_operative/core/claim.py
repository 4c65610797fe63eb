"""What to do with a delivery, given what is known about earlier ones.

The server's delivery count says only "perhaps run before", and may go back after the server was killed. The note in the
state store is what counts: it is written before every start after the first delivery, with `running` set, and again
when that start ends in a failure or is handed back, with `running` unset.

| note            | delivery  | meaning                                | lost starts | decision                    |
|-----------------|-----------|----------------------------------------|-------------|-----------------------------|
| none            | the first | nothing happened yet                   | 0           | start; noted: `on_lost:fail`|
| none            | a later   | perhaps started once, perhaps not      | 1           | by the budget and `on_lost` |
| `running` unset | any       | its last start ended in an orderly way | as noted    | start                       |
| `running` set   | the first | somebody runs it, or did a moment ago  | as noted    | let go                      |
| `running` set   | a later   | its last start never ended             | one more    | by the budget and `on_lost` |

"By the budget and `on_lost`": `on_lost: fail` and at least one lost start → failed at once; as many lost starts as the
budget → dead letter and failed; else start. "Let go": a server that was killed gives out as new what a worker still
runs, and nobody's lease has ended yet. Nothing is said, so it comes again when a lease is over; by then its end is in
the journal, or its start is lost. However many deliveries a stopped worker swallows, as long as none is
started they count as one lost start in all: without a start there is no note.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from gbe_jobs_domain.payloads import OnLost, TaskNote


@dataclass(frozen=True, slots=True)
class Start:
    """Run it. `note`: to be written first, where there is one."""

    attempt: int
    starts: int
    note: TaskNote | None


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Report it failed (lost). `dead_letter`: the crash budget is used up."""

    attempt: int
    starts: int
    error: str
    dead_letter: bool


@dataclass(frozen=True, slots=True)
class LetGo:
    """Leave it to whoever runs it; it comes again if nobody does."""

    attempt: int
    starts: int


Decision = Start | GiveUp | LetGo


def decide(deliveries: int, note: TaskNote | None, on_lost: OnLost, budget: int) -> Decision:
    """The table above."""
    if note is None and deliveries <= 1:
        # A server that was killed may give out as new what a worker runs. Most work is not worth a note for that.
        claim = TaskNote(starts=1, running=True) if on_lost is OnLost.FAIL else None
        return Start(attempt=1, starts=1, note=claim)
    if note is None:
        known = TaskNote(lost=1, starts=1)
    elif note.running and deliveries <= 1:
        return LetGo(note.failed + 1, note.starts)
    elif note.running:
        known = replace(note, lost=note.lost + 1, running=False)
    else:
        known = note
    lost_now = note is None or note.running
    attempt = known.failed + 1
    if lost_now and on_lost is OnLost.FAIL:
        return GiveUp(attempt, known.starts, "lost: its worker died or was cut off (on_lost: fail)", dead_letter=False)
    if lost_now and known.lost >= budget:
        text = f"lost: {known.lost} starts without an end; its worker died each time, or was cut off"
        return GiveUp(attempt, known.starts, text, dead_letter=True)
    starts = known.starts + 1
    return Start(attempt, starts, replace(known, starts=starts, running=True))


def after_failure(note: TaskNote | None, starts: int, error: str) -> TaskNote:
    """The note of a failed attempt that is to be repeated."""
    before = note or TaskNote()
    return replace(before, failed=before.failed + 1, starts=starts, last_error=error, running=False)


def after_hand_back(note: TaskNote | None, starts: int) -> TaskNote:
    """The note of a start that was ended in an orderly way and uses up nothing."""
    before = note or TaskNote()
    return replace(before, handed_back=before.handed_back + 1, starts=starts, running=False)
