"""Documents within documents: D11 and what travels of a molecule."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gbe_jobs_domain import molecules
from gbe_jobs_domain.documents import DefinitionErrors, load_document, load_file, load_molecule
from gbe_jobs_domain.molecules import (
    MoleculeIndex,
    TooManyVersions,
    parse_reference,
    references,
    registered,
    task_types,
)

GREET = """
molecule: greet
vars: {name: you, count: 1}
steps:
  - {name: say, operative: shell, timeout_secs: .5, params: {n: +5, version: 1.50, command: "echo ${{ vars.name }}"}}
output: say
"""


def job(molecule: str, more: str = "") -> str:
    return f"name: j\ntasks:\n- name: m\n  task_type: molecule\n  params: {{{more} molecule: {molecule}}}\n"


def block(text: str) -> str:
    indented = "".join(f"      {line}\n" for line in text.splitlines())
    return f"name: j\ntasks:\n- name: m\n  task_type: molecule\n  params:\n    molecule: |\n{indented}"


def inner(document: str, folder: Path | None = None) -> str:
    (task,) = load_document(document, source="job.yaml", folder=folder).definition.tasks
    text = task.params["molecule"]
    assert isinstance(text, str)
    return text


def test_text_and_mapping_and_file_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "greet.yaml").write_text(GREET)
    file = "name: j\ntasks: [{name: m, task_type: molecule, params: {molecule_path: greet.yaml}}]"
    mapping = "name: j\ntasks:\n- name: m\n  task_type: molecule\n  params:\n    molecule:\n" + "".join(
        f"      {line}\n" for line in GREET.splitlines()
    )
    assert inner(block(GREET)) == inner(mapping) == inner(file, tmp_path)


@pytest.mark.parametrize("form", ["molecule", "job"])
def test_both_forms_within_both_forms(form: str) -> None:
    """D11: one model."""
    if form == "molecule":
        text = "{molecule: i, steps: [{name: a, operative: shell, params: {command: x}}]}"
    else:
        text = "{name: i, tasks: [{name: a, task_type: shell, params: {command: x}}]}"
    loaded = load_document(inner(job(text)), source="inner").definition
    assert [(task.name, task.task_type, task.params) for task in loaded.tasks] == [("a", "shell", {"command": "x"})]


def test_what_travels_means_what_was_written() -> None:
    """Numbers keep their text, variables stay variables, and are substituted where it is run."""
    text = inner(block(GREET))
    json.loads(text)
    written = load_document(GREET, source="x", variables={"name": "Ada"}).definition
    assert load_document(text, source="x", variables={"name": "Ada"}).definition == written
    assert written.tasks[0].params == {"n": "+5", "version": "1.50", "command": "echo Ada"}
    assert "${{ vars.name }}" in text


def test_the_outer_documents_variables_are_not_the_molecules() -> None:
    document = "vars: {name: outer}\n" + block(GREET) + "    name: ${{ vars.name }}\n"
    (task,) = load_document(document, source="x").definition.tasks
    assert task.params["name"] == "outer"
    assert "${{ vars.name }}" in str(task.params["molecule"])


def test_files_are_relative_to_the_one_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "job.yaml").write_text(
        "name: j\ntasks: [{name: m, task_type: molecule, params: {molecule_path: a/a.yaml}}]"
    )
    (tmp_path / "a" / "a.yaml").write_text(
        "molecule: a\nsteps: [{name: b, operative: molecule, params: {molecule_path: ../b/b.yaml}}]"
    )
    (tmp_path / "b" / "b.yaml").write_text(GREET)
    (task,) = load_file(tmp_path / "job.yaml").tasks
    assert "molecule_path" not in task.params
    middle = load_document(str(task.params["molecule"]), source="a").definition
    leaf = load_document(str(middle.tasks[0].params["molecule"]), source="b").definition
    assert leaf.name == "greet"
    assert task_types(load_file(tmp_path / "job.yaml")) == {"molecule", "shell"}


def test_schemas_in_files_are_put_in(tmp_path: Path) -> None:
    (tmp_path / "schema.yaml").write_text("type: object\n")
    (tmp_path / "m.yaml").write_text("molecule: m\nsteps: [{name: a, operative: x, output_schema: schema.yaml}]")
    found = load_molecule(tmp_path / "m.yaml")
    assert load_document(found.text, source="m").definition.tasks[0].output_schema == {"type": "object"}


def test_a_document_that_was_sent_reads_no_files(tmp_path: Path) -> None:
    with pytest.raises(DefinitionErrors, match="there are no files where this document is loaded"):
        inner("name: j\ntasks: [{name: m, task_type: molecule, params: {molecule_path: /etc/hostname}}]")


def test_a_molecule_to_be_kept_is_as_it_was_written_or_has_its_files(tmp_path: Path) -> None:
    (tmp_path / "greet.yaml").write_text(GREET)
    assert load_molecule(tmp_path / "greet.yaml").text == GREET.encode()
    (tmp_path / "outer.yaml").write_text(
        "molecule: o\nsteps: [{name: g, operative: molecule, params: {molecule_path: greet.yaml}}]"
    )
    kept = load_molecule(tmp_path / "outer.yaml")
    assert b"molecule_path" not in kept.text
    assert load_document(kept.text, source="kept").definition == kept.definition


class TestHostile:
    def test_a_file_that_is_too_large(self, tmp_path: Path) -> None:
        (tmp_path / "m.yaml").write_text("# " + "x" * (1 << 20))
        with pytest.raises(DefinitionErrors, match="larger than 262,144 bytes"):
            inner("name: j\ntasks: [{name: m, task_type: molecule, params: {molecule_path: m.yaml}}]", tmp_path)

    def test_a_megabyte_inline(self) -> None:
        command = "x" * (1 << 20)
        with pytest.raises(DefinitionErrors, match="a molecule larger than 262,144 bytes"):
            inner(job(f"{{molecule: i, steps: [{{name: a, operative: shell, params: {{command: {command}}}}}]}}"))
        with pytest.raises(DefinitionErrors, match="larger than 262,144 bytes"):
            inner(block(f"molecule: i\nsteps: [{{name: a, operative: shell, params: {{command: {command}}}}}]"))

    def test_files_that_include_each_other_in_ever_greater_numbers(self, tmp_path: Path) -> None:
        """Each is read once; what they make together is limited before it is made."""
        (tmp_path / "m0.yaml").write_text(GREET)
        for level in range(1, 7):
            steps = ", ".join(
                f"{{name: s{n}, operative: molecule, params: {{molecule_path: m{level - 1}.yaml}}}}" for n in range(50)
            )
            (tmp_path / f"m{level}.yaml").write_text(f"molecule: m{level}\nsteps: [{steps}]")
        with pytest.raises(DefinitionErrors, match="with everything in it, a molecule larger than"):
            inner("name: j\ntasks: [{name: m, task_type: molecule, params: {molecule_path: m6.yaml}}]", tmp_path)

    def test_a_special_file_is_not_waited_for(self, tmp_path: Path) -> None:
        import os

        os.mkfifo(tmp_path / "m.yaml")
        with pytest.raises(DefinitionErrors, match="it is no file"):
            inner("name: j\ntasks: [{name: m, task_type: molecule, params: {molecule_path: m.yaml}}]", tmp_path)

    @pytest.mark.parametrize("name", ["\\0", "a/../../../../../x", "x" * 5000])
    def test_names_that_are_none(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(DefinitionErrors, match="can't be read"):
            inner(f'name: j\ntasks: [{{name: m, task_type: molecule, params: {{molecule_path: "{name}"}}}}]', tmp_path)

    def test_as_many_levels_as_there_may_be(self, tmp_path: Path) -> None:
        (tmp_path / "m0.yaml").write_text(GREET)
        for level in range(1, 10):
            (tmp_path / f"m{level}.yaml").write_text(
                f"molecule: m\nsteps: [{{name: s, operative: molecule, params: {{molecule_path: m{level - 1}.yaml}}}}]"
            )
        document = "name: j\ntasks: [{name: m, task_type: molecule, params: {molecule_path: m%d.yaml}}]"
        inner(document % (molecules.MAX_DEPTH - 1), tmp_path)
        with pytest.raises(DefinitionErrors, match="more than 8 levels deep"):
            inner(document % molecules.MAX_DEPTH, tmp_path)


def test_five_hundred_steps_fit() -> None:
    steps = ", ".join(f"{{name: step-{n}, operative: shell, params: {{command: echo number {n}}}}}" for n in range(500))
    assert len(load_document(inner(job(f"{{molecule: i, steps: [{steps}]}}")), source="i").definition.tasks) == 500


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", ("a", 0)),
        ("a-b_C@12", ("a-b_C", 12)),
        ("a@0", None),
        ("a@", None),
        ("", None),
        ("a.b", None),
        ("a@1\n", None),
    ],
)
def test_references_to_registered_molecules(text: str, expected: tuple[str, int] | None) -> None:
    assert parse_reference(text) == expected


def test_which_registered_molecules_a_document_names() -> None:
    nested = job("{molecule: i, steps: [{name: a, operative: molecule, params: {molecule_ref: b@2}}]}")
    document = nested + "- {name: n, task_type: molecule, params: {molecule_ref: a}}\n"
    definition = load_document(document, source="x").definition
    assert references(definition) == ["b@2", "a"]
    assert task_types(definition) is None


class TestIndex:
    def test_the_same_bytes_keep_their_version(self) -> None:
        index = MoleculeIndex()
        for digest in ("a", "b", "a"):
            index = registered(index, digest * 64, 1, "t", 5)
        assert [version.version for version in index.versions] == [1, 2]
        assert index.latest == 1

    def test_there_is_a_limit(self) -> None:
        index = MoleculeIndex()
        for number in range(molecules.MAX_VERSIONS):
            index = registered(index, f"{number:064x}", 1, "", 0)
        with pytest.raises(TooManyVersions):
            registered(index, "f" * 64, 1, "", 0)
        assert registered(index, f"{1:064x}", 1, "", 0).latest == 2
