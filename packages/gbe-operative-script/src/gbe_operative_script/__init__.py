"""The script Operative: a task is a script file."""
