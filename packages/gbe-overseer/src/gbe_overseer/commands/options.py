"""Options and arguments that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Nats = Annotated[str | None, typer.Option("--nats", metavar="URL", help="The bus: nats://host:port [GBE_NATS_URL]")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object")]
Variables = Annotated[
    list[str] | None, typer.Option("--var", metavar="NAME=VALUE", help="Set a variable of the document")
]
JobFile = Annotated[Path, typer.Argument(metavar="JOB.yaml", help="A job document (YAML or JSON); - is standard input")]
JobId = Annotated[str, typer.Argument(metavar="JOB_ID")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing on the way, only the result")]
