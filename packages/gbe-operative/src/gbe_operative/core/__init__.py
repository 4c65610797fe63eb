"""What the worker decides, as pure functions: no event loop, no transport."""
