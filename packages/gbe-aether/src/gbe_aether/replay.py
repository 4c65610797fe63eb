"""Replay: the state at a tick from the last I-block before it (specification, section 3, EXTRA-B)."""

from gbe_aether.errors import NotFoundError
from gbe_aether.result import SessionRunResult
from gbe_aether.umx import Stepper


def replay_state(result: SessionRunResult, tick: int, *, external_input: bool = False) -> list[int]:
    """The state after a tick, stepped from the `post_u` of the last I-block at or before it.

    Args:
        result: Of which session.
        tick: Which tick.
        external_input: Whether PFNA input between the I-block and the tick is added, as it was in the
            session. The specification's replay ignores it, and so does this unless asked.

    Raises:
        KeyError: there is no such I-block, or the tick is beyond the recorded ones.
    """
    ticks = result.tick_result
    if not 1 <= tick <= result.completed_ticks:
        raise NotFoundError(f"Tick {tick} is not among the recorded ticks 1..{result.completed_ticks}")
    spacing = result.config.profile.I_block_spacing_W
    start = tick - tick % spacing
    if start == 0:
        raise NotFoundError(f"No Loom I-block found at or before tick {tick}")
    state = ticks.i_blocks[start // spacing - 1].post_u
    stepper = Stepper(result.config.topology)
    for each in range(start + 1, tick + 1):
        vector = ticks.history.queue.vector(each) if external_input else None
        if vector is not None:
            state = [a + b for a, b in zip(state, vector, strict=True)]
        state = [int(value) for value in stepper.step(state, None).post]
    return state
