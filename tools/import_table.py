"""The import-linter contract behind the table of section 2: what a package may import of ours.

An allow-list, unlike import-linter's own `forbidden`: a package that joins the workspace later is
closed to everybody until somebody's row names it.
"""

from typing import cast

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class MayImport(Contract):
    """`package` imports itself, foreign packages, and of ours only what `allowed` names."""

    package = fields.StringField()
    allowed = fields.SetField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Look at the direct imports only: whatever is allowed has a contract of its own."""
        ours = set(self.session_options["root_packages"])
        package = str(self.package)
        open_to_it = {package} | cast("set[str]", self.allowed)
        if unknown := open_to_it - ours:
            raise ValueError(f"{package}: not a package of this workspace: {', '.join(sorted(unknown))}")
        found: list[str] = []
        for importer in sorted({package} | graph.find_descendants(package)):
            for imported in sorted(graph.find_modules_directly_imported_by(importer)):
                owner = imported.partition(".")[0]
                if owner in ours - open_to_it:
                    lines = {d["line_number"] for d in graph.get_import_details(importer=importer, imported=imported)}
                    found.append(f"{importer} (line {', '.join(map(str, sorted(lines)))}) imports {imported}")
        return ContractCheck(kept=not found, metadata={"found": found})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for line in check.metadata["found"]:
            output.print_error(line)
