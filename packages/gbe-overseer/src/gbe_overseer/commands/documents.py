"""`gbe validate`, `gbe graph`, `gbe schema`: about documents; no server is needed."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gbe_overseer import session
from gbe_overseer.commands.options import JobFile, Variables


class GraphFormat(StrEnum):
    """How a graph is drawn."""

    TREE = "tree"
    MERMAID = "mermaid"


def validate(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="Job documents (YAML or JSON); - is standard input")
    ],
    var: Variables = None,
) -> None:
    """Check job documents: every error at once, with its place."""

    async def work() -> int:
        from gbe_jobs_domain.errors import DefinitionErrors
        from gbe_overseer.escape import one_line
        from gbe_overseer.show import write
        from gbe_overseer.words import plural

        session.variables(var or [])  # what is wrong with these is said once
        code = 0
        for file in files:
            try:
                definition = session.document(file, var).definition
            except DefinitionErrors as errors:
                code = session.complain(errors)
            else:
                count = plural(len(definition.tasks), "task")
                write(f"{one_line(str(file))}: ok, {one_line(definition.name)}, {count}\n")
        return code

    session.run(work)


def graph(
    file: JobFile,
    format: Annotated[GraphFormat, typer.Option("--format", help="A text tree, or a Mermaid flowchart")] = (
        GraphFormat.TREE
    ),
    var: Variables = None,
) -> None:
    """Draw the DAG of a job document."""

    async def work() -> int:
        from gbe_jobs_domain.graph import render_mermaid, render_tree
        from gbe_overseer.show import write

        definition = session.document(file, var).definition
        write(render_tree(definition) if format is GraphFormat.TREE else render_mermaid(definition))
        return 0

    session.run(work)


def schema() -> None:
    """Print the JSON Schema of job documents, for editors."""

    async def work() -> int:
        import json

        from gbe_jobs_domain.schema import job_document_schema
        from gbe_overseer.show import write

        write(json.dumps(job_document_schema(), indent=2, ensure_ascii=False) + "\n")
        return 0

    session.run(work)
