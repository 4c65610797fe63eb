"""The assert Operative: a task is a command and what is expected of it."""
