"""What Operatives share whose tasks are commands. No Operative by itself."""

from gbe_operative_command.commands import TaskCommands as TaskCommands
from gbe_operative_command.operative import CommandOperative as CommandOperative
from gbe_operative_command.stdin import STDIN_PARAMS as STDIN_PARAMS
