"""Links lead somewhere, and the commands that the texts name exist."""

import functools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.docs.fences import commands, fences
from tests.workspace import ROOT, members

PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *(member.folder / "README.md" for member in members())])
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))

_FENCED = re.compile(r"^ {0,3}(`{3,}|~{3,}).*?^ {0,3}\1\s*?$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_SPAN = re.compile(r"`([^`\n]+)`")
_COMMAND = re.compile(r"(?:^|[\s(|;&])gbe ([a-z][a-z-]*)")


def prose(page: Path) -> str:
    """The text without its fenced blocks."""
    return _FENCED.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """What a `#…` may name in a page: its headings, as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@functools.cache
def known_commands() -> set[str]:
    """Subcommands of `gbe`, as it says itself."""
    help_text = subprocess.run(
        [sys.executable, "-m", "gbe_overseer", "--help"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    return set(re.findall(r"^  ([a-z-]+) ", help_text.partition("Commands:")[2], re.MULTILINE))


@every_page
def test_links_resolve(page: Path) -> None:
    for target in _LINK.findall(_SPAN.sub("", prose(page))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = page if not path else (page.parent / path).resolve()
        assert found.exists(), f"{page.relative_to(ROOT)}: {target} leads nowhere"
        assert found.is_relative_to(ROOT), f"{page.relative_to(ROOT)}: {target} leads out of the repository"
        if anchor:
            assert anchor in anchors(found), f"{page.relative_to(ROOT)}: no heading for {target}"


@every_page
def test_commands_exist(page: Path) -> None:
    spans = [span for span in _SPAN.findall(prose(page)) if span.startswith("gbe ")]
    typed = [line for fence in fences(page) if fence.words[:1] == ("console",) for line in commands(fence).splitlines()]
    named = {name for text in [*spans, *typed] for name in _COMMAND.findall(text)}
    assert named <= known_commands(), f"{page.relative_to(ROOT)}: no such command: {named - known_commands()}"


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in PAGES:
        for target in re.findall(r"(?:^\$ |`)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page.name}: make {target}"


def test_every_distributable_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for member in members():
        assert f"({member.folder.relative_to(ROOT)}/README.md)" in text, member.name


def test_pip_install_lines_name_our_distributables() -> None:
    names = {tomllib.loads(file.read_text())["project"]["name"] for file in ROOT.glob("*/*/pyproject.toml")}
    table = re.findall(r"^\| [^|]+ \| `(gbe[^`]*)`", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert table
    for row in table:
        assert set(row.split()) <= names, row
