"""The python Operative: a task is a Python module, or a function with typed arguments."""
