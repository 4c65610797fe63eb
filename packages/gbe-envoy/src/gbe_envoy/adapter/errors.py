"""What can go wrong before, or beside, the command itself."""

from __future__ import annotations


class CommandError(Exception):
    """The command could not be started, or what it produced could not be kept. The text says what and why."""


class OutputError(CommandError):
    """The output could not be stored (a full disk, for instance); the command was killed and its file removed."""


class ParamError(CommandError):
    """A param cannot become an environment variable.

    `param` is its name ("" when the params are at fault together), `reason` the text without the name.
    """

    def __init__(self, param: str, reason: str) -> None:
        super().__init__(f"param {param!r}: {reason}" if param else reason)
        self.param = param
        self.reason = reason
