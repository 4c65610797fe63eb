"""What a command can't do, said in one line."""

from __future__ import annotations


class OverseerError(Exception):
    """The input or the environment was wrong: exit code 2."""


class OutputRefused(OverseerError):
    """What stdout goes to does not take it: a full disk, for example."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"the output can't be written: {error.strerror or error}")


class NoEcumene(OverseerError):
    """The server has none of the streams."""

    def __init__(self) -> None:
        super().__init__("no ecumene on this server (its streams are missing): start `gbe up` or `gbe-oracle`")


class UnknownJob(OverseerError):
    """No journal, no history, no submit under that id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"no job {job_id}: it was never submitted, or it is older than what the history keeps")


class OtherDefinition(OverseerError):
    """The id belongs to a job with another definition."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"{job_id} exists already, with another definition")


class EcumeneFull(OverseerError):
    """A stream that holds work has no room to spare."""

    def __init__(self, stream: str, fullness: float) -> None:
        super().__init__(
            f"not submitted: stream {stream} is {fullness:.0%} full, new jobs are refused from 80 % "
            "(work under way needs the rest)"
        )


class JobRefusedError(OverseerError):
    """The Oracle made no job of the submit."""
