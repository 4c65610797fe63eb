"""Broken documents, each with the exact complaints it gets (in the `.txt` beside it)."""

from pathlib import Path

import pytest

from gbe_jobs_domain.documents import DefinitionErrors, load_document, load_file

FOLDER = Path(__file__).parent / "broken"
DOCUMENTS = sorted(file for file in FOLDER.iterdir() if file.suffix in (".yaml", ".json"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.name)
def test_the_complaints_are_exactly_these(document: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)  # a file that is named within is beside it, and is called what it is called there
    with pytest.raises(DefinitionErrors) as caught:
        load_file(document.name)
    expected = document.with_name(document.name + ".txt").read_text(encoding="utf-8")
    assert str(caught.value) + "\n" == expected


def test_there_are_many() -> None:
    assert len(DOCUMENTS) >= 95
    assert len(list(FOLDER.glob("*.txt"))) == len(DOCUMENTS)


def test_without_a_folder_there_are_no_files() -> None:
    text = "name: job\ntasks:\n  - {name: a, task_type: x, output_schema: schemas/empty.yaml}\n"
    with pytest.raises(DefinitionErrors) as caught:
        load_document(text, source="sent.yaml")
    assert str(caught.value) == (
        "sent.yaml:3:44: tasks[0].output_schema: there are no files where this document is loaded; "
        "write the schema into it"
    )
