"""From a command's options to a connection, and from what goes wrong to a line and an exit code."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from gbe_jobs_domain.documents import Document
    from gbe_overseer.client import JobClient
    from gbe_runtime import BusSettings


STDIN = "-"
"""In place of a file's name."""


@dataclass(frozen=True, slots=True)
class GlobalOptions:
    """What stands before the command: `gbe --nats URL jobs`."""

    nats: str | None = None
    nats_creds: str | None = None
    nats_user: str | None = None
    config: str | None = None


def settings(context: typer.Context, nats: str | None = None, *, log_level: str = "error") -> BusSettings:
    """Flags, then `GBE_*` variables, then the settings file. Raises `ConfigurationError`.

    `log_level`: unless a variable says otherwise. The log of a command that somebody looks at is for what is wrong.
    """
    from gbe_runtime import BusSettings

    options = context.find_object(GlobalOptions) or GlobalOptions()
    flags = {
        "nats_url": nats or options.nats,
        "nats_creds": options.nats_creds,
        "nats_user": options.nats_user,
    }
    environ = {"GBE_LOG_LEVEL": log_level, **{name: value for name, value in os.environ.items() if value}}
    return BusSettings.load({name: value for name, value in flags.items() if value}, environ, options.config)


def shares_files(options: BusSettings) -> bool:
    """Whether the Operatives see the same files as this process: as far as can be told, the ecumene is this host's.

    So it is where no URL is named (the connection file is a neighbour's), and where all that are named are loopback's.
    """
    from ipaddress import ip_address
    from urllib.parse import urlsplit

    def is_loopback(url: str) -> bool:
        try:
            host = urlsplit(url if "//" in url else f"//{url}").hostname or ""
            return host == "localhost" or ip_address(host).is_loopback
        except ValueError:
            return False

    return not options.nats_url or all(is_loopback(url.strip()) for url in options.nats_url.split(","))


@contextlib.asynccontextmanager
async def connected(options: BusSettings) -> AsyncIterator[JobClient]:
    """A client on the bus that the settings name."""
    from gbe_overseer.client import JobClient
    from gbe_runtime import connect_bus, setup_logging

    setup_logging(options.log_format, options.log_level, "gbe")
    transport = await connect_bus(options, name="gbe")
    try:
        yield JobClient(transport)
    finally:
        await transport.close()


def run(work: Callable[[], Awaitable[int]]) -> NoReturn:
    """Run a command's work in an event loop and leave with its exit code."""
    import asyncio

    async def main() -> int:
        return await work()

    def in_loop() -> int:
        with asyncio.Runner(debug=False) as runner:
            return runner.run(main())

    raise typer.Exit(guarded(in_loop))


def guarded(work: Callable[[], int]) -> int:
    """The exit code of `work`, or of what went wrong in it, which is said on stderr."""
    from gbe_runtime.exit_codes import INTERRUPTED

    try:
        return work()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return reader_gone()
    except Exception as error:
        return complain(error)


def complain(error: Exception) -> int:
    """Say what is wrong, a line each, and give the exit code; what nobody expected is raised again."""
    from gbe_jobs_domain.errors import DefinitionErrors
    from gbe_jobs_domain.ids import InvalidId
    from gbe_nexus import NexusError
    from gbe_overseer.errors import OutputRefused, OverseerError
    from gbe_runtime import ConfigurationError
    from gbe_runtime.errors import ChildFailed
    from gbe_runtime.exit_codes import FAILED, USAGE
    from gbe_runtime.log import one_line

    if isinstance(error, DefinitionErrors):
        lines: list[str] = str(error).splitlines()
    elif isinstance(error, ConfigurationError):
        lines = list(error.lines)
    elif isinstance(error, OverseerError | NexusError | InvalidId | ChildFailed):
        lines = [str(error) or type(error).__name__]
    else:
        raise error
    if isinstance(error, OutputRefused):
        reader_gone()  # what is left in the buffer can't be written either
    prefix = "" if isinstance(error, DefinitionErrors) else "gbe: "
    for line in lines:
        print(f"{prefix}{one_line(line)}", file=sys.stderr, flush=True)
    return FAILED if isinstance(error, ChildFailed) and error.code != USAGE else USAGE


def reader_gone() -> int:
    """Whoever read our output has enough of it (`gbe logs … | head`). Python must not complain at its exit either."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def document(file: Path, pairs: list[str] | None) -> Document:
    """The job document in a file (`-`: standard input), with `--var` put in. Raises `DefinitionErrors`, and
    `ConfigurationError` for the variables."""
    import signal

    from gbe_jobs_domain.documents import MAX_DOCUMENT_BYTES, load_document, load_document_file
    from gbe_jobs_domain.errors import DefinitionError, DefinitionErrors

    given = variables(pairs or [])
    # Who reads may wait for ever, for a pipe, say; the event loop heeds no interrupt meanwhile.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if str(file) != STDIN:
            return load_document_file(file, given)
        try:
            text = sys.stdin.buffer.read(MAX_DOCUMENT_BYTES + 1)
        except OSError as error:
            reason = f"can't be read: {error.strerror or error}"
            raise DefinitionErrors([DefinitionError("<stdin>", 0, 0, "", reason)]) from error
        return load_document(text, source="<stdin>", variables=given, folder=file.parent)
    finally:
        signal.signal(signal.SIGINT, before)


def variables(pairs: list[str]) -> dict[str, str]:
    """`--var k=v`, as often as wanted."""
    from gbe_runtime import ConfigurationError

    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ConfigurationError(f"--var {pair}: expected NAME=VALUE")
        if name in found:
            raise ConfigurationError(f"--var {name}: given twice")
        found[name] = value
    return found
