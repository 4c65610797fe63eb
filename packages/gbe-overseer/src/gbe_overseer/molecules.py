"""Lists of registered molecules, as people or programs read them. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from gbe_jobs_domain.molecules import MoleculeIndex
from gbe_overseer.escape import one_line
from gbe_overseer.listing import moment, table


def molecule_lines(found: Mapping[str, MoleculeIndex]) -> str:
    """A line per molecule: its latest version, how many it has, when that was put, what its document calls itself."""
    rows = [("MOLECULE", "VERSIONS", "CREATED", "TITLE")]
    for name, index in sorted(found.items()):
        if (latest := index.find()) is not None:
            count, when = f"{len(index.versions):,}", moment(latest.created_at)
            rows.append((f"{name}@{latest.version}", count, when, one_line(latest.title, 40)))
    return table(rows)


def version_lines(name: str, index: MoleculeIndex) -> str:
    """A line per version, the newest first; what the name alone means is marked."""
    rows = [("MOLECULE", "CREATED", "BYTES", "SHA256", "")]
    for version in sorted(index.versions, key=lambda version: -version.version):
        mark = "latest" if version.version == index.latest else ""
        when = moment(version.created_at)
        rows.append((f"{name}@{version.version}", when, f"{version.size:,}", version.sha256[:12], mark))
    return table(rows)


def molecules_object(found: Mapping[str, MoleculeIndex]) -> dict[str, object]:
    """`{"molecules": [{name, latest, versions: [{version, sha256, size, title, created_at}]}]}`."""
    return {"molecules": [molecule_object(name, index) for name, index in sorted(found.items())]}


def molecule_object(name: str, index: MoleculeIndex) -> dict[str, object]:
    """One of them."""
    return {"name": name, "latest": index.latest, "versions": index.versions}
