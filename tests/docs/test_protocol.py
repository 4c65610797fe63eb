"""What the documentation says of the protocol and the settings is what the code has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gbe_jobs_domain.streams import streams
from gbe_operative.command import OperativeSettings
from gbe_oracle.settings import OracleSettings
from gbe_runtime.settings import BusSettings, Settings
from tests.workspace import ROOT
from tools.protocol_schemas import ELSEWHERE, PROTOCOL, rendered

GOLDEN = Path(__file__).parent / "golden"


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_schemas_are_current() -> None:
    kept = {file.name: file.read_text(encoding="utf-8") for file in PROTOCOL.iterdir()}
    assert kept == rendered(), "run: python -m tools.protocol_schemas"


@pytest.mark.parametrize("name", sorted(rendered()))
def test_every_schema_is_linked(name: str) -> None:
    assert f"(protocol/{name})" in page("protocol.md")


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_what_is_read_is_written_again(name: str) -> None:
    data = (GOLDEN / f"{name}.json").read_bytes()
    struct = ELSEWHERE[name][0]
    assert msgspec.json.encode(msgspec.json.decode(data, type=struct)) == data
    newer = b'{"added_later":{"x":[1]},' + data[1:]
    assert msgspec.json.encode(msgspec.json.decode(newer, type=struct)) == data


@pytest.mark.parametrize("spec", streams(), ids=lambda spec: spec.name)
def test_every_stream_is_in_the_table(spec: Any) -> None:
    (row,) = re.findall(rf"^\| `{spec.name}` \|.*$", page("protocol.md"), re.MULTILINE)
    assert ("discard: new" in row) is not spec.discard_old
    assert ("work queue" in row) is spec.work_queue
    # `gbe.jobs.*.{created,failed}` stands for one subject each.
    named = set()
    for subject in re.findall(r"`(gbe\.[^`]+)`", row):
        before, _, rest = subject.partition("{")
        choices, _, after = rest.partition("}")
        named |= {before + choice + after for choice in choices.split(",")}
    assert named == set(spec.subjects)


@pytest.mark.parametrize("settings", [BusSettings, OracleSettings, OperativeSettings])
def test_every_setting_is_in_the_tables(settings: type[Settings]) -> None:
    text = page("deployment.md")
    for field in msgspec.structs.fields(settings):
        flag = {"nats_url": "--nats"}.get(field.name, "--" + field.name.replace("_", "-"))
        shown = f"| `{flag}` | `GBE_{field.name.upper()}` |"
        assert shown in text or f"| | `GBE_{field.name.upper()}` |" in text, shown
