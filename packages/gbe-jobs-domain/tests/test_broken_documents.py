"""Broken documents, each with the exact complaints it gets (in the `.txt` beside it)."""

from pathlib import Path

import pytest

from gbe_jobs_domain.documents import DefinitionErrors, load_document

FOLDER = Path(__file__).parent / "broken"
DOCUMENTS = sorted(file for file in FOLDER.iterdir() if file.suffix in (".yaml", ".json"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.name)
def test_the_complaints_are_exactly_these(document: Path) -> None:
    with pytest.raises(DefinitionErrors) as caught:
        load_document(document.read_bytes(), source=document.name)
    expected = document.with_name(document.name + ".txt").read_text(encoding="utf-8")
    assert str(caught.value) + "\n" == expected


def test_there_are_many() -> None:
    assert len(DOCUMENTS) >= 60
    assert len(list(FOLDER.glob("*.txt"))) == len(DOCUMENTS)
