"""Settings: where a value comes from, and what a wrong one is answered with."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from msgspec import Meta

from gbe_runtime import BusSettings, ConfigurationError, Setting
from gbe_runtime.errors import SettingsError
from gbe_runtime.secret import SecretStr


class OracleSettings(BusSettings, frozen=True, kw_only=True):
    section: ClassVar[str] = "oracle"

    window: Annotated[int, Meta(ge=1), Setting("Outstanding tasks per job and type")] = 2048
    purge: Annotated[bool, Setting("Purge journals of finished jobs")] = True
    job_types: tuple[str, ...] = ()


class Strict(BusSettings, frozen=True, kw_only=True):
    data_dir: Annotated[Path, Setting("Where the data is")]


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "gbe.toml"


def test_defaults() -> None:
    settings = OracleSettings.parse([], {})
    assert settings == OracleSettings()
    assert (settings.nats_url, settings.replicas, settings.log_format, settings.window) == (None, 1, "text", 2048)


def test_a_flag_counts_more_than_a_variable_than_the_file_than_the_default(toml: Path) -> None:
    toml.write_text('nats_url = "nats://file"\nreplicas = 5\nwindow = 7\nlog_level = "error"')
    environ = {"GBE_NATS_URL": "nats://variable", "GBE_REPLICAS": "3", "GBE_CONFIG": str(toml)}
    settings = OracleSettings.parse(["--nats", "nats://flag"], environ)
    assert settings.nats_url == "nats://flag"
    assert settings.replicas == 3
    assert settings.window == 7
    assert settings.log_level == "error"
    assert settings.log_format == "text"


def test_an_empty_variable_is_an_unset_one() -> None:
    settings = OracleSettings.parse([], {"GBE_NATS_URL": "", "GBE_REPLICAS": "", "GBE_CONFIG": ""})
    assert settings == OracleSettings()


def test_an_empty_path_is_none(toml: Path) -> None:
    toml.write_text('data_dir = ""')
    for arguments in (["--data-dir", ""], ["--config", str(toml)]):
        with pytest.raises(SettingsError, match="a path can't be empty"):
            Strict.parse(arguments, {})


def test_a_file_may_serve_several_roles(toml: Path) -> None:
    toml.write_text('replicas = 3\n[oracle]\nreplicas = 5\nwindow = 9\n[operative]\nhandles = "shell:4"')
    settings = OracleSettings.parse(["--config", str(toml)], {})
    assert (settings.replicas, settings.window) == (5, 9)
    assert BusSettings.parse(["--config", str(toml)], {}).replicas == 3


@pytest.mark.parametrize(("text", "value"), [("1", True), ("YES", True), ("off", False), ("false", False)])
def test_booleans(text: str, value: bool, toml: Path) -> None:
    assert OracleSettings.parse([], {"GBE_PURGE": text}).purge is value
    assert OracleSettings.parse(["--purge" if value else "--no-purge"], {}).purge is value
    toml.write_text(f"purge = {str(value).lower()}")
    assert OracleSettings.parse(["--config", str(toml)], {}).purge is value


def test_lists_and_paths(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    settings = OracleSettings.parse(["--job-types", "a, b,"], {"GBE_NATS_CREDS": "~/a.creds"})
    assert settings.job_types == ("a", "b")
    assert settings.nats_creds == Path("/home/somebody/a.creds")
    toml.write_text('job_types = ["c"]')
    assert OracleSettings.parse(["--config", str(toml)], {}).job_types == ("c",)


def test_a_secret_has_no_flag_and_does_not_show_itself(capsys: pytest.CaptureFixture[str]) -> None:
    settings = BusSettings.parse([], {"GBE_NATS_PASSWORD": "hunter2"})
    assert settings.nats_password == SecretStr("hunter2")
    assert settings.nats_password is not None
    assert settings.nats_password.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(settings) + str(settings.nats_password)
    with pytest.raises(ConfigurationError, match="unrecognized arguments: --nats-password"):
        BusSettings.parse(["--nats-password", "hunter2"], {})


def test_a_flag_is_given_once() -> None:
    """`--handles shell --handles llm` would serve no shell tasks, and say nothing of it."""
    with pytest.raises(ConfigurationError, match="--nats is given twice"):
        BusSettings.parse(["--nats", "nats://a:1", "--nats", "nats://b:1"], {})


def test_everything_wrong_is_said_at_once_with_its_origin(toml: Path) -> None:
    toml.write_text('log_format = "xml"\nwindwo = 3\nconnect_timeout = "soon"\n[oracle]\npurge = 3')
    with pytest.raises(SettingsError) as caught:
        OracleSettings.parse(["--window", "0"], {"GBE_REPLICAS": "many", "GBE_CONFIG": str(toml)})
    assert set(caught.value.problems) == {
        "--window: '0' does not do: expected int >= 1",
        "GBE_REPLICAS: 'many' does not do: expected int, got str",
        f"{toml}: windwo: unknown key (did you mean window?)",
        f"{toml}: log_format: 'xml' is not one of text, json",
        f"{toml}: connect_timeout: 'soon' does not do: expected float, got str",
        f"{toml}: oracle.purge: 3 is not one of true, false",
    }
    assert len(caught.value.lines) == 6


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "1e400", "0"])
def test_times_are_numbers_that_make_sense(text: str) -> None:
    with pytest.raises(SettingsError, match="GBE_HEARTBEAT_INTERVAL: "):
        BusSettings.parse([], {"GBE_HEARTBEAT_INTERVAL": text})


def test_a_wrong_secret_is_not_repeated(toml: Path) -> None:
    toml.write_text("nats_password = 4711")
    with pytest.raises(SettingsError) as caught:
        BusSettings.parse(["--config", str(toml)], {})
    assert "4711" not in str(caught.value)
    assert "nats_password" in str(caught.value)


def test_a_file_that_is_not_there_or_not_toml(tmp_path: Path, toml: Path) -> None:
    with pytest.raises(SettingsError, match=r"--config: can't read '.*none.toml': No such file"):
        BusSettings.parse(["--config", str(tmp_path / "none.toml")], {})
    toml.write_bytes(b"a = \xff")
    with pytest.raises(SettingsError, match="not a TOML file"):
        BusSettings.parse([], {"GBE_CONFIG": str(toml)})
    toml.write_text("oracle = 3")
    with pytest.raises(SettingsError, match="unknown key"):
        OracleSettings.parse([], {"GBE_CONFIG": str(toml)})


def test_what_is_needed_and_missing() -> None:
    with pytest.raises(SettingsError, match=r"--data-dir: missing \(or GBE_DATA_DIR\)"):
        Strict.parse([], {})
    assert Strict.parse(["--data-dir", "/d"], {}).data_dir == Path("/d")


def test_a_wrong_command_line_is_one_line() -> None:
    with pytest.raises(ConfigurationError) as caught:
        BusSettings.parse(["--nats"], {}, prog="gbe-oracle")
    assert caught.value.lines == ("argument --nats: expected one argument; see `gbe-oracle --help`",)


def test_help_names_flags_variables_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        OracleSettings.parse(["--help"], {}, prog="gbe-oracle")
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--window N Outstanding tasks per job and type (default 2048) [GBE_WINDOW]" in text
    assert "--log-format {text,json}" in text
    assert "--purge, --no-purge" in text
    assert "password" not in text.lower() or "GBE_NATS_PASSWORD" in text


def test_a_literal_of_numbers_keeps_its_type() -> None:
    class Levels(BusSettings, frozen=True, kw_only=True):
        level: Annotated[Literal[1, 2], Setting("Level")] = 1

    assert Levels.parse(["--level", "2"], {}).level == 2
