"""How a function says that its attempt ends otherwise than by a result. Any other exception is a failure, too."""

from __future__ import annotations


class Retry(Exception):
    """This attempt failed, and another may do better: said without a traceback. `max_retries` of the task counts.

    `after`: seconds before which another attempt would be in vain.
    """

    def __init__(self, message: str = "", *, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


class Reject(Exception):
    """The task can't work, now or later: it fails without another attempt."""


class Skip(Exception):
    """There is nothing to do: the task is skipped, and what depends on it starts all the same."""


class Cancelled(BaseException):
    """Raised in a function without `async` when its attempt is cancelled, timed out, or handed back by a worker that
    stops. `finally` has a few seconds; then the process is killed.
    """


class DeclarationError(Exception):
    """A function can't be a task, or an app can't be served; the text names the function."""
