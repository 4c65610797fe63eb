"""What every role process shares: settings, logging, signals, lifecycle and heartbeat.

The names below are loaded when they are first used: importing this costs nothing.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gbe_runtime.backoff import retry_delay as retry_delay
    from gbe_runtime.bus_role import BusRole as BusRole
    from gbe_runtime.command import role_command as role_command
    from gbe_runtime.command import run_role as run_role
    from gbe_runtime.connection import ConnectionFile as ConnectionFile
    from gbe_runtime.connection import connect_bus as connect_bus
    from gbe_runtime.errors import ConfigurationError as ConfigurationError
    from gbe_runtime.lifecycle import Role as Role
    from gbe_runtime.lifecycle import RoleState as RoleState
    from gbe_runtime.lifecycle_payloads import LifecyclePayload as LifecyclePayload
    from gbe_runtime.lifecycle_payloads import lifecycle_subject as lifecycle_subject
    from gbe_runtime.log import register_secret as register_secret
    from gbe_runtime.log import setup_logging as setup_logging
    from gbe_runtime.settings import BusSettings as BusSettings
    from gbe_runtime.settings import Setting as Setting
    from gbe_runtime.settings import Settings as Settings
    from gbe_runtime.supervisor import ChildSpec as ChildSpec
    from gbe_runtime.supervisor import ProcessSupervisor as ProcessSupervisor

_HOME = {
    "retry_delay": "backoff",
    "BusRole": "bus_role",
    "role_command": "command",
    "run_role": "command",
    "ConnectionFile": "connection",
    "connect_bus": "connection",
    "ConfigurationError": "errors",
    "Role": "lifecycle",
    "RoleState": "lifecycle",
    "LifecyclePayload": "lifecycle_payloads",
    "lifecycle_subject": "lifecycle_payloads",
    "register_secret": "log",
    "setup_logging": "log",
    "BusSettings": "settings",
    "Setting": "settings",
    "Settings": "settings",
    "ChildSpec": "supervisor",
    "ProcessSupervisor": "supervisor",
}


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
