"""The members of the workspace, as their own `pyproject.toml` files describe them."""

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Member:
    """One distributable: where it lies and what it says of itself."""

    folder: Path
    project: dict[str, Any]
    module: str

    @property
    def name(self) -> str:
        """The name it is installed by."""
        return str(self.project["name"])

    @property
    def source(self) -> Path:
        """The folder of its module."""
        return self.folder / "src" / self.module

    @property
    def scripts(self) -> list[str]:
        """The commands it installs."""
        return sorted(self.project.get("scripts", {}))

    def __str__(self) -> str:
        return self.name


@functools.cache
def members() -> tuple[Member, ...]:
    """All packages and services, by name."""
    found = []
    for file in [*ROOT.glob("packages/*/pyproject.toml"), *ROOT.glob("services/*/pyproject.toml")]:
        content = tomllib.loads(file.read_text())
        name = content["project"]["name"]
        module = content.get("tool", {}).get("uv", {}).get("build-backend", {}).get("module-name")
        found.append(Member(file.parent, content["project"], module or name.replace("-", "_")))
    return tuple(sorted(found, key=lambda member: member.name))
