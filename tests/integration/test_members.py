"""What every member of the workspace has in common: version, licence, README, typing, honest dependencies."""

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions

import pytest

from tests.workspace import Member, members

every_member = pytest.mark.parametrize("member", members(), ids=str)


def normal(requirement: str) -> str:
    """The name in a requirement, as indexes compare it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;(]", requirement, maxsplit=1)[0]).lower()


def requirements(member: Member) -> Iterator[str]:
    """All it declares, extras included."""
    yield from member.project["dependencies"]
    for extra in member.project.get("optional-dependencies", {}).values():
        yield from extra


def imports(member: Member) -> Iterator[tuple[str, str]]:
    """Each package its sources import, with the place, also inside of functions."""
    for file in sorted(member.source.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            else:
                continue
            for name in names:
                yield name.partition(".")[0], f"{file.relative_to(member.folder)}:{node.lineno}"


@every_member
def test_versions_are_in_lockstep(member: Member) -> None:
    version = members()[0].project["version"]
    assert member.project["version"] == version
    for requirement in requirements(member):
        if normal(requirement).startswith("gbe"):
            assert requirement.endswith(f"=={version}"), "ours are released together, so they are required exactly"
        else:
            assert ">=" in requirement, f"{requirement}: no lower bound"


@every_member
def test_metadata_is_complete(member: Member) -> None:
    assert member.project["license"] == "MIT"
    assert member.project["requires-python"] == ">=3.11"
    assert member.project["readme"] == "README.md"
    assert len(member.project["description"]) > 20
    assert (member.source / "py.typed").is_file()


@every_member
def test_readme_begins_with_what_the_folder_is_for(member: Member) -> None:
    lines = [line for line in (member.folder / "README.md").read_text(encoding="utf-8").splitlines() if line.strip()]
    assert lines[0] == f"# {member.name}"
    assert len(lines) > 1, "a title alone"
    assert re.match(r"[A-Z`].{20,}", lines[1]), f"no sentence under the title: {lines[1]!r}"


@every_member
def test_what_is_imported_is_declared(member: Member) -> None:
    declared = {normal(requirement) for requirement in requirements(member)} | {member.name}
    distributions = packages_distributions()
    ours = {m.module: m.name for m in members()}
    undeclared = {}
    for package, place in imports(member):
        if package in sys.stdlib_module_names:
            continue
        owners = (
            {ours[package]} if package in ours else {normal(name) for name in distributions.get(package, [package])}
        )
        if not owners & declared:
            undeclared[place] = package
    assert undeclared == {}
