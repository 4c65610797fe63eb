"""The `gbe` command: its own commands, and those that other distributables add.

A distributable adds a command by an entry point of the group `gbe.commands`: its name is the command's, its object a
function as typer takes them, or a `typer.Typer` with several. Nothing is imported before it is needed, and a plug-in
that is broken is named, without harm to the others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from gbe_overseer.session import GlobalOptions

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = "gbe.commands"

BUILT_IN: Final = {
    "submit": "gbe_overseer.commands.submit:submit",
    "jobs": "gbe_overseer.commands.look:jobs",
    "show": "gbe_overseer.commands.look:show",
    "watch": "gbe_overseer.commands.look:watch",
    "logs": "gbe_overseer.commands.look:logs",
    "cancel": "gbe_overseer.commands.cancel:cancel",
    "molecule": "gbe_overseer.commands.molecule:molecule",
    "validate": "gbe_overseer.commands.documents:validate",
    "graph": "gbe_overseer.commands.documents:graph",
    "schema": "gbe_overseer.commands.documents:schema",
}


class Commands(TyperGroup):
    """The built-in commands and the plug-ins', each imported when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Plug-ins first: `run` and `up` are what most people look for."""
        return [*sorted(_plug_ins()), *BUILT_IN]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, None where there is none."""
        if cmd_name in BUILT_IN:
            module, _, function = BUILT_IN[cmd_name].partition(":")
            return _as_command(cmd_name, getattr(import_module(module), function))
        point = _plug_ins().get(cmd_name)
        return None if point is None else _plugged_in(cmd_name, point)


@cache
def _plug_ins() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # slow to import: only where plug-ins are asked for

    return {point.name: point for point in entry_points(group=GROUP) if point.name not in BUILT_IN}


def _plugged_in(name: str, point: EntryPoint) -> TyperCommand | TyperGroup:
    try:
        return _as_command(name, point.load())
    except Exception as error:  # whatever a stranger's module does when it is imported
        return _as_command(name, _broken(name, point, error))


def _broken(name: str, point: EntryPoint, error: Exception) -> Callable[[], None]:
    owner = point.dist.name if point.dist is not None else point.value
    what = f"{type(error).__name__}: {error}"

    def command() -> None:
        print(f"gbe: the command {name!r} of {owner} is broken: {what}", file=sys.stderr)
        raise typer.Exit(2)

    command.__doc__ = f"(broken plug-in of {owner}: {what})"
    return command


def _as_command(name: str, function: Callable[..., Any] | typer.Typer) -> TyperCommand | TyperGroup:
    if isinstance(function, typer.Typer):  # a group of commands
        group = typer.main.get_group(function)
        group.name = name
        return group
    single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    single.command(name)(function)
    command = typer.main.get_command(single)
    assert isinstance(command, TyperCommand)
    return command


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"gbe {version('gbe-overseer')}")
        raise typer.Exit


def _root(
    context: typer.Context,
    nats: Annotated[
        str | None, typer.Option("--nats", metavar="URL", help="The bus: nats://host:port [GBE_NATS_URL]")
    ] = None,
    nats_creds: Annotated[
        str | None, typer.Option("--nats-creds", metavar="FILE", help="NATS credentials file [GBE_NATS_CREDS]")
    ] = None,
    nats_user: Annotated[
        str | None,
        typer.Option("--nats-user", metavar="NAME", help="User on the bus [GBE_NATS_USER]; see GBE_NATS_PASSWORD"),
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", metavar="FILE", help="TOML file with settings [GBE_CONFIG]")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit")
    ] = False,
) -> None:
    """GBE Ecumene: jobs over NATS JetStream.

    Without --nats and GBE_NATS_URL, commands use what `gbe up` runs on this host, and `gbe run` brings its own.
    """
    context.obj = GlobalOptions(nats, nats_creds, nats_user, config)


def open_standard_streams() -> None:
    """Open those that whoever started us has closed (`gbe … >&-`), before a file or a socket takes their place."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def main() -> None:
    """Run `gbe`."""
    open_standard_streams()
    app = typer.Typer(
        name="gbe",
        cls=Commands,
        callback=_root,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    # typer's rich error boxes take 0.1 s to import and break the one line into many.
    os.environ.setdefault("TYPER_USE_RICH", "0")
    app(prog_name="gbe")


if __name__ == "__main__":
    main()
