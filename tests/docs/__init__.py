"""The examples in the documentation, run."""
