"""Ids, definitions, states, payloads and subjects of jobs and tasks: the words every role speaks."""
