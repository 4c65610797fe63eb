"""Settings of a process: flags, then `GBE_*` variables, then a TOML file, then defaults.

A settings class is a msgspec struct; each field is one flag, one variable and one key:

    class OracleSettings(BusSettings, frozen=True, kw_only=True):
        section: ClassVar[str] = "oracle"
        window: Annotated[int, Meta(ge=1), Setting("Outstanding tasks per job and type")] = 2048

gives `--window N`, `GBE_WINDOW` and `window = 2048` (at the top of the file, or in its table `[oracle]`, which
counts more). A file may serve several roles: tables of other names are theirs. Everything that is wrong is reported
at once, each with the flag, the variable or the key it came from.

Own code instead of pydantic-settings, since that takes 0.3 s to import in each process of a `gbe run`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from gbe_runtime.errors import ConfigurationError, SettingsError
from gbe_runtime.secret import SecretStr

if TYPE_CHECKING:
    import argparse
    from typing import Self

PREFIX = "GBE_"
CONFIG_VARIABLE = "GBE_CONFIG"
_CONFIG_DEST = "gbe_config"
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


@dataclass(frozen=True, slots=True)
class Setting:
    """What a field says about itself. `flag` and `env`: None = made from the field's name, "" = there is none.

    A secret has no flag: everybody on the host can read a command line.
    """

    help: str
    flag: str | None = None
    env: str | None = None
    metavar: str | None = None


class Source(NamedTuple):
    """One value as it was found, and where."""

    value: object
    where: str


class _Field(NamedTuple):
    """A field of a settings class with everything derived from it."""

    name: str
    type: Any
    help: str
    flag: str
    env: str
    metavar: str | None
    default: object

    @property
    def dest(self) -> str:
        return f"gbe_setting_{self.name}"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The base of every settings class. Build one with `parse`, or in a test by its fields."""

    section: ClassVar[str] = ""
    """The table of the TOML file that is this role's own."""

    @classmethod
    def parse(
        cls,
        argv: Sequence[str] | None = None,
        environ: Mapping[str, str] | None = None,
        *,
        prog: str | None = None,
        description: str | None = None,
    ) -> Self:
        """The settings for this command line and environment (by default, those of this process).

        Raises `ConfigurationError`. `--help` prints and leaves by `SystemExit(0)`.
        """
        import argparse

        class Parser(argparse.ArgumentParser):
            def error(self, message: str) -> Any:
                raise ConfigurationError(message, f"see `{self.prog} --help`")

        parser = Parser(prog=prog, description=description, allow_abbrev=False)
        cls.add_arguments(parser)
        return cls.from_arguments(parser.parse_args(argv), environ)

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
        """Add a flag per field, and `--config`, to a parser that also has arguments of its own."""
        import argparse

        class Once(argparse.Action):
            """Of a flag that is given twice, the first would be dropped without a word."""

            def __call__(
                self,
                parser: argparse.ArgumentParser,
                namespace: argparse.Namespace,
                values: Any,
                flag: str | None = None,
            ) -> None:
                if getattr(namespace, self.dest, None) is not None:
                    parser.error(f"{flag} is given twice")
                setattr(namespace, self.dest, values)

        for field in _fields(cls):
            if not field.flag:
                continue
            text = _help(field)
            if _is_bool(field.type):
                parser.add_argument(
                    field.flag, dest=field.dest, action=argparse.BooleanOptionalAction, default=None, help=text
                )
            else:
                parser.add_argument(
                    field.flag, dest=field.dest, metavar=field.metavar, default=None, help=text, action=Once
                )
        parser.add_argument(
            "--config", dest=_CONFIG_DEST, metavar="FILE", default=None, help=f"TOML file [{CONFIG_VARIABLE}]"
        )

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace, environ: Mapping[str, str] | None = None) -> Self:
        """The settings, where `add_arguments` was used."""
        flags = {field.name: getattr(arguments, field.dest, None) for field in _fields(cls)}
        config = getattr(arguments, _CONFIG_DEST, None)
        return cls.load({name: value for name, value in flags.items() if value is not None}, environ, config)

    @classmethod
    def load(
        cls,
        flags: Mapping[str, object] | None = None,
        environ: Mapping[str, str] | None = None,
        config: str | os.PathLike[str] | None = None,
    ) -> Self:
        """The settings from flag values by field name, variables, and a TOML file. Raises `SettingsError`."""
        variables = os.environ if environ is None else environ
        problems: list[str] = []
        file = {}
        path = config or variables.get(CONFIG_VARIABLE)
        if path:
            origin = "--config" if config else CONFIG_VARIABLE
            file = _read_toml(cls, Path(path), origin, problems)
        values: dict[str, Any] = {}
        for field in _fields(cls):
            source = _find(field, flags or {}, variables, file)
            if source is None:
                if field.default is msgspec.NODEFAULT:
                    problems.append(f"{field.flag or field.env}: missing{_variable_too(field)}")
                continue
            try:
                values[field.name] = _convert(field, source.value)
            except (msgspec.ValidationError, ValueError) as error:
                problems.append(f"{source.where}: {_reason(field, source.value, error)}")
        if problems:
            raise SettingsError(problems)
        return cls(**values)


class BusSettings(Settings, frozen=True, kw_only=True):
    """What every role on the bus is told."""

    nats_url: Annotated[
        str | None,
        Setting("The bus: nats://host:port, several with commas", flag="--nats", env="GBE_NATS_URL", metavar="URL"),
    ] = None
    nats_creds: Annotated[Path | None, Setting("NATS credentials file", metavar="FILE")] = None
    nats_user: Annotated[str | None, Setting("User on the bus", metavar="NAME")] = None
    nats_password: Annotated[SecretStr | None, Setting("Password on the bus")] = None
    tls_ca: Annotated[Path | None, Setting("Certificates of the authorities to trust", metavar="FILE")] = None
    connect_timeout: Annotated[
        float, msgspec.Meta(gt=0, le=3600), Setting("Seconds to wait for the first connection")
    ] = 5.0
    replicas: Annotated[int, msgspec.Meta(ge=1, le=5), Setting("Copies of each stream that is made")] = 1
    connection_file: Annotated[
        Path | None, Setting("Where `gbe up` says how to reach it (used without a URL)", metavar="FILE")
    ] = None
    heartbeat_interval: Annotated[float, msgspec.Meta(ge=0.05, le=3600), Setting("Seconds between heartbeats")] = 5.0
    log_format: Annotated[Literal["text", "json"], Setting("Log for people or for machines")] = "text"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Setting("What to log")] = "info"


def _fields(cls: type[Settings]) -> list[_Field]:
    hints = get_type_hints(cls, include_extras=True)
    found = []
    for info in msgspec.structs.fields(cls):
        hint = hints[info.name]
        extras = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        about = next((extra for extra in extras if isinstance(extra, Setting)), Setting(""))
        flag = "--" + info.name.replace("_", "-") if about.flag is None else about.flag
        env = PREFIX + info.name.upper() if about.env is None else about.env
        if SecretStr in _alternatives(hint):
            flag = ""
        default = info.default_factory() if info.default_factory is not msgspec.NODEFAULT else info.default
        found.append(_Field(info.name, hint, about.help, flag, env, about.metavar or _metavar(hint), default))
    return found


def _find(
    field: _Field, flags: Mapping[str, object], environ: Mapping[str, str], file: Mapping[str, Source]
) -> Source | None:
    if field.name in flags:
        return Source(flags[field.name], field.flag or field.name)
    # An empty variable counts as unset: that is what `GBE_NATS_URL= gbe run` and an empty line in a unit file mean.
    if field.env and (text := environ.get(field.env)):
        return Source(text, field.env)
    return file.get(field.name)


def _read_toml(cls: type[Settings], path: Path, origin: str, problems: list[str]) -> dict[str, Source]:
    import tomllib

    try:
        with path.open("rb") as opened:
            content = tomllib.load(opened)
    except OSError as error:
        problems.append(f"{origin}: can't read {str(path)!r}: {error.strerror or error}")
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"{path}: not a TOML file: {error}")
        return {}
    known = {field.name for field in _fields(cls)}
    own = content.get(cls.section) if cls.section else None
    top = {key: value for key, value in content.items() if not isinstance(value, dict) or key in known}
    found: dict[str, Source] = {}
    for place, table in (("", top), (f"{cls.section}.", own if isinstance(own, dict) else {})):
        for key, value in table.items():
            where = f"{path}: {place}{key}"
            if key in known:
                found[key] = Source(value, where)
            else:
                problems.append(f"{where}: unknown key{_did_you_mean(key, known)}")
    return found


def _convert(field: _Field, value: object) -> object:
    if isinstance(value, str):
        value = _from_text(field.type, value)
    return msgspec.convert(value, field.type, strict=False, dec_hook=_decode_hook)


def _from_text(hint: Any, text: str) -> object:
    """Text of a flag or a variable, nearer to what the type wants. msgspec reads the numbers itself."""
    if _is_bool(hint):
        word = text.strip().lower()
        return True if word in _TRUE else False if word in _FALSE else text
    if any(get_origin(option) in (tuple, list) for option in _alternatives(hint)):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _decode_hook(wanted: type, value: object) -> object:
    if wanted is SecretStr and isinstance(value, str):
        return SecretStr(value)
    if issubclass(wanted, Path) and isinstance(value, str):
        if not value:  # `--data "$UNSET"`: not the directory one happens to be in
            raise ValueError("a path can't be empty")
        return Path(value).expanduser()
    raise ValueError(f"Expected `str`, got `{type(value).__name__}`")


def _reason(field: _Field, value: object, error: Exception) -> str:
    """msgspec's reason, in which the value appears (unless it is a secret) and the choices are named."""
    shown = "that" if SecretStr in _alternatives(field.type) else repr(value)
    choices = [
        choice for option in _alternatives(field.type) if get_origin(option) is Literal for choice in get_args(option)
    ]
    if choices:
        return f"{shown} is not one of {', '.join(map(str, choices))}"
    if _is_bool(field.type):
        return f"{shown} is not one of true, false"
    text = str(error)
    return f"{shown} does not do: {text[:1].lower()}{text[1:].replace('`', '')}"


def _alternatives(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, UnionType):
        return tuple(option for part in get_args(hint) for option in _alternatives(part))
    return (hint,)


def _is_bool(hint: Any) -> bool:
    return bool in _alternatives(hint)


def _metavar(hint: Any) -> str | None:
    options = [option for option in _alternatives(hint) if option is not NoneType]
    choices = [choice for option in options if get_origin(option) is Literal for choice in get_args(option)]
    if choices:
        return "{" + ",".join(map(str, choices)) + "}"
    names = {int: "N", float: "N", Path: "FILE"}
    return names.get(options[0], "TEXT") if options else None


def _help(field: _Field) -> str:
    default = "" if field.default in (None, msgspec.NODEFAULT) else f" (default {field.default})"
    variable = f" [{field.env}]" if field.env else ""
    return f"{field.help}{default}{variable}".strip().replace("%", "%%")


def _variable_too(field: _Field) -> str:
    return f" (or {field.env})" if field.flag and field.env else ""


def _did_you_mean(word: str, known: set[str]) -> str:
    import difflib

    near = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {near[0]}?)" if near else f" (known: {', '.join(sorted(known))})"
