"""Relative paths start at the document; nothing else of a definition is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from gbe_jobs_domain.documents import load_document
from gbe_jobs_domain.locations import located

DOCUMENT = """
name: paths
tasks:
  - {name: a, task_type: script, params: {script_path: bin/../a.sh, args: bin/x}}
  - {name: b, task_type: template, params: {template_path: /etc/b.j2, output_path: out/b.conf}}
  - {name: c, task_type: template, params: {template: "{{ org }}", template_path: {secret: where}}}
  - {name: d, task_type: shell, params: {command: ls, script_path: bin}}
"""


def test_they_are_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    definition = load_document(DOCUMENT, source="x")
    found = located(definition.definition, "jobs")
    a, b, c, d = found.tasks
    assert a.params == {"script_path": f"{tmp_path}/jobs/bin/../a.sh", "args": "bin/x"}
    assert b.params == {"template_path": "/etc/b.j2", "output_path": f"{tmp_path}/jobs/out/b.conf"}
    assert (c, d) == tuple(definition.definition.tasks[2:])


def test_most_jobs_have_none() -> None:
    definition = load_document("{name: x, tasks: [{name: a, task_type: shell}]}", source="x").definition
    assert located(definition, "/jobs") is definition
