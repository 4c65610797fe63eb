"""`gbe molecule put|list|show`: molecules that are kept under a name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gbe_overseer import session
from gbe_overseer.commands.options import Json, Nats

molecule = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Keep molecules under a name, for `molecule_ref: name`.",
)


@molecule.command()
def put(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The molecule's document (YAML or JSON)")],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="What to keep it as (default: its own name)")
    ] = None,
    json: Json = False,
    nats: Nats = None,
) -> None:
    """Keep a molecule as its name's latest version; prints name@version. The same bytes are the same version."""

    async def work() -> int:
        from gbe_jobs_domain.documents import load_molecule
        from gbe_jobs_domain.reader import slug
        from gbe_overseer.registry import MoleculeRegistry
        from gbe_overseer.result import to_json

        loaded = load_molecule(file)
        title = loaded.definition.name
        async with session.connected(session.settings(context, nats)) as client:
            registry = await MoleculeRegistry.on(client.transport)
            found = await registry.put(name or slug(title), loaded.text, title)
        if json:
            version = found.version
            print(
                to_json(
                    {
                        "name": found.name,
                        "version": version.version,
                        "sha256": version.sha256,
                        "size": version.size,
                        "existed": found.existed,
                    }
                )
            )
        else:
            if found.existed:
                print(f"gbe: {found.reference} has these bytes already", file=sys.stderr, flush=True)
            print(found.reference)
        return 0

    session.run(work)


@molecule.command("list")
def list_(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="All versions of this one")] = None,
    json: Json = False,
    nats: Nats = None,
) -> None:
    """List the registered molecules, or the versions of one."""

    async def work() -> int:
        from gbe_overseer.molecules import molecule_lines, molecule_object, molecules_object, version_lines
        from gbe_overseer.registry import MoleculeRegistry
        from gbe_overseer.result import to_json
        from gbe_overseer.show import write

        async with session.connected(session.settings(context, nats)) as client:
            registry = await MoleculeRegistry.on(client.transport)
            if name is None:
                found = await registry.list()
                text = to_json(molecules_object(found)) + "\n" if json else molecule_lines(found)
            else:
                index = await registry.index(name)
                text = to_json(molecule_object(name, index)) + "\n" if json else version_lines(name, index)
        write(text)
        return 0

    session.run(work)


@molecule.command()
def show(
    context: typer.Context,
    reference: Annotated[str, typer.Argument(metavar="NAME[@VERSION]")],
    nats: Nats = None,
) -> None:
    """Print a registered molecule's document."""

    async def work() -> int:
        from gbe_overseer.escape import lines_of
        from gbe_overseer.registry import MoleculeRegistry
        from gbe_overseer.show import write

        async with session.connected(session.settings(context, nats)) as client:
            found, document = await (await MoleculeRegistry.on(client.transport)).show(reference)
        text = document.decode("utf-8", "replace")
        if sys.stdout.isatty():
            print(f"# {found.reference}, sha256 {found.version.sha256}", file=sys.stderr, flush=True)
            text = "".join(f"{line}\n" for line in lines_of(text))
        write(text)
        return 0

    session.run(work)
