"""What can go wrong before and around a role, apart from the bus (`gbe_nexus.errors`)."""

from __future__ import annotations

from collections.abc import Sequence


class ConfigurationError(Exception):
    """What this process was given is wrong: a flag, a variable, a file. Exit code 2.

    `message` says what was found, where, and what was expected; `hint` says what to do.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def lines(self) -> tuple[str, ...]:
        """One complete line per problem."""
        return (f"{self.message}; {self.hint}" if self.hint else self.message,)

    def __str__(self) -> str:
        return "\n".join(self.lines)


class SettingsError(ConfigurationError):
    """All that is wrong with the settings, at once: one line per flag, variable or key."""

    def __init__(self, problems: Sequence[str], hint: str | None = None) -> None:
        super().__init__("\n".join(problems), hint)
        self.problems = tuple(problems)

    @property
    def lines(self) -> tuple[str, ...]:
        """One complete line per problem, the hint at the last."""
        if self.hint is None:
            return self.problems
        return (*self.problems[:-1], f"{self.problems[-1]}; {self.hint}")


class LifecycleError(RuntimeError):
    """A role was used out of order: started twice, or given work when it does not run."""


class StoppedDuringStart(LifecycleError):
    """`start()` did not finish, because somebody called `stop()`."""


class ChildFailed(Exception):
    """A supervised process ended before it was ready. `code` is its exit code (negative: a signal)."""

    def __init__(self, name: str, code: int, how: str) -> None:
        super().__init__(f"{name} did not start: {how}")
        self.name = name
        self.code = code


def describe(error: BaseException) -> str:
    """The text of an error, and its kind where it has none."""
    return str(error) or type(error).__name__
