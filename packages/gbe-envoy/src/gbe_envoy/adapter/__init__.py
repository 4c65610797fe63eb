"""Running commands: started fast, fed, captured within bounds, and ended with everything they started.

Knows processes and files only: no transport, no jobs.
"""

from gbe_envoy.adapter.environment import DEFAULT_ALLOW, PROTECTED, build_environment
from gbe_envoy.adapter.errors import CommandError, OutputError, ParamError
from gbe_envoy.adapter.model import Command, CommandResult, Limits, OnLine
from gbe_envoy.adapter.runner import CommandRunner
from gbe_envoy.adapter.spawn import DEFAULT_PATH, find_executable

__all__ = [
    "Command",
    "CommandResult",
    "CommandRunner",
    "Limits",
    "OnLine",
    "CommandError",
    "OutputError",
    "ParamError",
    "DEFAULT_ALLOW",
    "DEFAULT_PATH",
    "PROTECTED",
    "build_environment",
    "find_executable",
]
