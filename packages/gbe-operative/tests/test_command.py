"""The command, the plug-ins, and the secrets of a host."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from gbe_operative import plugins
from gbe_operative.command import OperativeSettings, main, make_worker
from gbe_operative.composite import CompositeOperative
from gbe_operative.contract import Operative
from gbe_operative.core.handles import parse_handles
from gbe_operative.mock import MockOperative
from gbe_operative.secrets import InsecureSecrets, Secrets


def broken(task_types: Sequence[str]) -> Operative:
    raise RuntimeError("boom")


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """What is installed."""
    installed = [
        EntryPoint("mock", "gbe_operative.mock:MockOperative", plugins.GROUP),
        EntryPoint("gone", "no_such_module:Thing", plugins.GROUP),
        EntryPoint("typo", "gbe_operative.mock:NoSuchName", plugins.GROUP),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: installed)
    return installed


def test_plugins_are_loaded_once_for_all_their_types(points: list[EntryPoint]) -> None:
    operative = plugins.load_all(parse_handles("a=mock,b=mock:2", 1))
    assert isinstance(operative, MockOperative)
    assert operative.handles == ("a", "b")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nope", r"no Operative 'nope' is installed here; there are: gone, mock, typo"),
        ("gone", r"'gone' \(no_such_module:Thing\) is broken"),
        ("typo", r"'typo' .* is broken"),
    ],
)
def test_a_broken_plugin_is_named(points: list[EntryPoint], name: str, says: str) -> None:
    with pytest.raises(plugins.PluginError, match=says):
        plugins.load(name, ["x"])


def test_several_plugins_are_one_operative(points: list[EntryPoint], monkeypatch: pytest.MonkeyPatch) -> None:
    points.append(EntryPoint("other", "gbe_operative.mock:MockOperative", plugins.GROUP))
    operative = plugins.load_all(parse_handles("a=mock,b=other", 1))
    assert isinstance(operative, CompositeOperative)
    assert operative.handles == ("a", "b")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--handles", "a:0", "--nats", "memory://"], "slots are a number"),
        (["--handles", "nope", "--nats", "memory://"], "no Operative 'nope'"),
        (["--handles", "mock", "--nats", "memory://", "--secrets", "/nowhere"], "/nowhere"),
        (["--handles", "mock", "--nats", "memory://", "--work-root", "/nowhere"], "not a directory"),
        (["--handles", "mock", "--nats", "gopher://x"], "gopher"),
        (["--ack-wait", "x"], "--ack-wait"),
        (["--nope"], "--nope"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(
    argv: list[str], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    error = capfd.readouterr().err
    assert says in error
    assert error.count("\n") == 1


async def test_the_worker_as_configured() -> None:
    settings = OperativeSettings.parse(["--nats", "memory://", "--handles", "a=mock:3,mock", "--slots", "5"], {})
    worker = await make_worker(settings)
    assert worker.capabilities() == {"task_types": {"a": 3, "mock": 5}}
    await worker.stop()


def test_plugins_are_not_imported_before_they_are_used() -> None:
    code = "import sys, gbe_operative.command; print([m for m in sys.modules if 'shell' in m or m == 'nats'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- secrets ---


def test_secrets_of_the_environment() -> None:
    secrets = Secrets({"GBE_SECRET_API_TOKEN": "x", "OTHER": "y"})
    assert secrets.get("api-token") == secrets.get("api.token") == "x"
    assert secrets.get("OTHER") is None


def test_secrets_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secrets.toml"
    file.write_text('"api-token" = "from file"\n')
    file.chmod(0o600)
    assert Secrets({"GBE_SECRET_API_TOKEN": "env"}, file).get("api-token") == "from file"
    file.chmod(0o640)
    with pytest.raises(InsecureSecrets, match="0640"):
        Secrets({}, file)
    file.chmod(0o600)
    file.write_text("a = 1\n")
    with pytest.raises(InsecureSecrets, match="not strings: a"):
        Secrets({}, file)
    file.write_text("a = \n")
    with pytest.raises(InsecureSecrets, match="secrets file"):
        Secrets({}, file)


def test_secrets_in_a_directory(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "token").chmod(0o600)
    secrets = Secrets({}, tmp_path)
    assert secrets.get("token") == "first"
    (tmp_path / "token").write_text("rotated")
    assert secrets.get("token") == "rotated"
    assert secrets.get("nope") is None
    assert secrets.get("..") is None
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(InsecureSecrets, match="0644"):
        secrets.get("token")
