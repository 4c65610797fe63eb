"""The contract suites that every nexus implementation has to pass, importable by third parties."""
