"""The shell Operative: runs a task as a command under `sh -c`."""
