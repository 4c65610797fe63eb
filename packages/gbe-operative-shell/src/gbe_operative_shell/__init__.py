"""The shell Operative: a task is a command for `sh -c`."""

from gbe_operative_shell.operative import ShellOperative as ShellOperative
