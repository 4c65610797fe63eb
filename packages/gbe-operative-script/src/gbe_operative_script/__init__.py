"""The script Operative: a task is a script file."""

from gbe_operative_script.operative import ScriptOperative as ScriptOperative
