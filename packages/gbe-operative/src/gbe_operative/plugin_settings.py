"""Settings of a plug-in, from variables: what the owner of the host decides, and no job.

    class HttpSettings(Settings, frozen=True, kw_only=True):
        allow: Annotated[tuple[str, ...], Setting("Addresses that are allowed", env="GBE_HTTP_ALLOW")] = ()

    settings = from_environment(HttpSettings)

The variables are `GBE_<PLUG-IN>_<NAME>`, so that one means one thing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from gbe_operative.rooted import PathError, Root
from gbe_runtime.errors import ConfigurationError
from gbe_runtime.secret import SecretStr
from gbe_runtime.settings import CONFIG_VARIABLE, Setting, Settings

__all__ = ["from_environment", "root_of", "ConfigurationError", "SecretStr", "Setting", "Settings"]

T = TypeVar("T", bound=Settings)


def from_environment(settings: type[T], environment: Mapping[str, str] | None = None) -> T:
    """The settings as the variables say. Raises `ConfigurationError` with everything that is wrong."""
    variables = os.environ if environment is None else environment
    # The process's TOML file is the worker's: it would have keys that mean nothing here.
    return settings.load(environ={name: value for name, value in variables.items() if name != CONFIG_VARIABLE})


def root_of(variable: str, directory: Path | None) -> Root:
    """The root that a setting names, by default the directory where the process was started.

    Unless that is `/`, as it is for services: then paths lead nowhere until somebody names a directory. Raises
    `ConfigurationError`, which names the variable.
    """
    try:
        if directory is None:
            here = Path.cwd()
            return Root(None if here == Path("/") else here, variable)
        return Root(directory, variable)
    except (PathError, OSError) as error:
        raise ConfigurationError(f"{variable}: {error}") from error
