"""What a cancel came to, in words and as an exit code. Pure."""

from __future__ import annotations

from gbe_jobs_domain.states import JobState
from gbe_overseer.client import CancelAnswer, Cancelled
from gbe_runtime.exit_codes import FAILED, OK, USAGE


def cancel_text(job_id: str, cancelled: Cancelled, waited: float) -> str:
    """One line that says which it was."""
    match cancelled.answer:
        case CancelAnswer.CANCELLED:
            return f"{job_id}: cancelled"
        case CancelAnswer.ALREADY_OVER:
            state = cancelled.state.value if cancelled.state else "over"
            return f"{job_id}: nothing to cancel, the job is {state} already"
        case CancelAnswer.UNKNOWN:
            return f"gbe: no job {job_id}: it was never submitted, or it is older than what the history keeps"
        case CancelAnswer.NO_ORACLE:
            return f"gbe: {job_id}: no Oracle is alive; the request is kept, the next Oracle will cancel the job"
    return f"gbe: {job_id}: no answer within {waited:g} s; the request is kept (gbe show {job_id})"


def cancel_exit_code(cancelled: Cancelled) -> int:
    """0: the job is cancelled; 1: it ended otherwise; 2: nobody knows."""
    if cancelled.answer is CancelAnswer.CANCELLED or cancelled.state is JobState.CANCELLED:
        return OK
    return FAILED if cancelled.answer is CancelAnswer.ALREADY_OVER else USAGE
