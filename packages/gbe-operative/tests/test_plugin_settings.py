"""Settings of plug-ins: from variables, and from nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import pytest

from gbe_operative.plugin_settings import ConfigurationError, SecretStr, Setting, Settings, from_environment


class Some(Settings, frozen=True, kw_only=True):
    allow: Annotated[tuple[str, ...], Setting("Addresses", env="GBE_SOME_ALLOW")] = ()
    key: Annotated[SecretStr | None, Setting("A key", env="GBE_SOME_KEY")] = None
    limit: Annotated[int, msgspec.Meta(ge=1), Setting("A limit", env="GBE_SOME_LIMIT")] = 5


def test_from_variables(tmp_path: Path) -> None:
    file = tmp_path / "worker.toml"
    file.write_text("nats_url = 'nats://x'\nlimit = 7\n")
    variables = {"GBE_SOME_ALLOW": "a, b", "GBE_SOME_KEY": "s3cret", "GBE_CONFIG": str(file), "GBE_LIMIT": "9"}
    settings = from_environment(Some, variables)
    assert settings == Some(allow=("a", "b"), key=SecretStr("s3cret"), limit=5)
    assert "s3cret" not in repr(settings)


def test_everything_that_is_wrong_is_named_with_its_variable() -> None:
    with pytest.raises(ConfigurationError, match="GBE_SOME_LIMIT: '0'"):
        from_environment(Some, {"GBE_SOME_LIMIT": "0"})
