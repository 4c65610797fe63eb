"""The molecule Operative: a task is a job of its own."""
