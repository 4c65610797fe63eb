"""From a task's params, which are texts, to the arguments of a function, by their annotations.

| annotation | takes |
|---|---|
| none, `str` | the text |
| `int`, `float`, `bool`, `Decimal`, `Enum`, `Literal`, `Path`, `UUID` | the text, read as that |
| `datetime`, `date`, `time`, `timedelta`; `bytes` | the text, as ISO 8601 has it; as base64 |
| `list`, `tuple`, `set`, `dict`, dataclass, `TypedDict`, `NamedTuple`, `msgspec.Struct` | the text as JSON |
| `Any` | the text as JSON where it is JSON, else the text |
| a union | the first kind that fits; one with `str` takes as text what is no JSON array or object |
| with `None` | `null`, too |
| `Annotated[…, msgspec.Meta(ge=1)]` | what keeps to it |

What is read as JSON is as lenient inside: `["1", "2"]` is a `list[int]`, so that a command's lines are one.
"""

from __future__ import annotations

import difflib
import enum
import inspect
import re
import types
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import msgspec.inspect

from gbe_operative_python.defaults import complete
from gbe_operative_python.errors import DeclarationError

SHOWN = 60
"""Characters of a value that an error shows."""

_TEXTS = (
    msgspec.inspect.StrType,
    msgspec.inspect.BytesType,
    msgspec.inspect.ByteArrayType,
    msgspec.inspect.DateTimeType,
    msgspec.inspect.DateType,
    msgspec.inspect.TimeType,
    msgspec.inspect.TimeDeltaType,
    msgspec.inspect.UUIDType,
    msgspec.inspect.DecimalType,
    msgspec.inspect.EnumType,
    msgspec.inspect.LiteralType,
    msgspec.inspect.IntType,
    msgspec.inspect.FloatType,
    msgspec.inspect.BoolType,
    msgspec.inspect.NoneType,
    msgspec.inspect.CustomType,
)
_EXPECTED = re.compile(r"Expected `([^`]*)`(?P<rule>.*)\Z")
_PLACE = re.compile(r"\A(?P<what>.*?)(?: - at (?P<key>the key in )?`(?P<path>\$[^`]*)`)?\Z", re.DOTALL)


class ArgumentError(ValueError):
    """The params don't fit the function; the text names the param, what was found, and what was expected."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of the function."""

    name: str
    type: Any
    required: bool
    default: Any
    plain: bool
    """A `str` of any kind: nothing to convert."""
    nullable: bool
    structured: bool
    """Takes something that is written as JSON."""
    textual: bool
    """Takes something that is not."""
    anything: bool

    @property
    def path(self) -> bool:
        """Takes a path."""
        return any(isinstance(one, type) and issubclass(one, PurePath) for one in _members(self.type))

    @property
    def shown(self) -> str:
        """As an error lists it: `path: str`, `width: int = 800`."""
        text = f"{self.name}: {type_text(self.type)}"
        return text if self.required else f"{text} = {_short(repr(self.default))}"


class Signature:
    """What a function takes. Raises `DeclarationError` where params can't be given to it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.parameters: dict[str, Parameter] = {}
        self.rest = False
        """Whether it takes params it doesn't name (`**rest`)."""
        name = getattr(function, "__qualname__", repr(function))
        try:
            hints = get_type_hints(_without_return(function), include_extras=True)
        except Exception as error:
            raise DeclarationError(f"{name}: its annotations can't be read: {error}") from error
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                if hints.get(parameter.name, str) not in (str, Any, object):
                    raise DeclarationError(f"{name}: **{parameter.name} gets texts: annotate it as str, or not at all")
                self.rest = True
            elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
                raise DeclarationError(f"{name}: {parameter} can't be given by name, and params have names")
            else:
                self.parameters[parameter.name] = _parameter(name, parameter, hints.get(parameter.name, str))
        self._required = [one.name for one in self.parameters.values() if one.required]

    @property
    def shown(self) -> str:
        """All parameters, for errors."""
        return ", ".join(one.shown for one in self.parameters.values()) or "no params"

    def arguments(self, params: Mapping[str, str], secrets: Collection[str] = ()) -> dict[str, Any]:
        """The keyword arguments. `secrets`: texts that no error shows. Raises `ArgumentError` with all of it."""
        parameters = self.parameters
        arguments: dict[str, Any] = {}
        problems: list[str] = []
        for name, text in params.items():
            parameter = parameters.get(name)
            if parameter is None:
                if self.rest:
                    arguments[name] = text
                else:
                    problems.append(self._unknown(name, params))
            elif parameter.plain and not parameter.nullable:
                arguments[name] = text
            else:
                try:
                    arguments[name] = _convert(parameter, text, secrets)
                except ArgumentError as error:
                    problems.append(str(error))
        if missing := [name for name in self._required if name not in params]:
            problems.append(f"missing param{'s' if len(missing) > 1 else ''}: {', '.join(missing)}")
        if problems:
            if missing or (not self.rest and not parameters.keys() >= params.keys()):
                problems.append(f"it takes {self.shown}")
            raise ArgumentError("; ".join(problems).replace("?; ", "? "))
        return arguments

    def _unknown(self, name: str, params: Mapping[str, str]) -> str:
        free = [one for one in self.parameters if one not in params]
        near = difflib.get_close_matches(name, free, 1, 0.6) or difflib.get_close_matches(
            name.replace("-", "_").lower(), free, 1, 0.6
        )
        hint = f": did you mean {near[0]!r}?" if near else ""
        return f"unknown param {_short(repr(name))}{hint}"


def _without_return(function: Callable[..., Any]) -> Any:
    """What has the function's annotations, but for that of its result: nobody needs it, and it may be unknown here."""
    annotations = {name: hint for name, hint in function.__annotations__.items() if name != "return"}
    return types.SimpleNamespace(__annotations__=annotations, __globals__=inspect.unwrap(function).__globals__)


def _parameter(function: str, parameter: inspect.Parameter, hint: Any) -> Parameter:
    try:
        kinds = _kinds(msgspec.inspect.type_info(hint))
        msgspec.json.Decoder(hint, dec_hook=decode_custom, strict=False)
    except (TypeError, NotImplementedError) as error:
        raise DeclarationError(f"{function}: the parameter {parameter.name}: {type_text(hint)}: {error}") from error
    for kind in kinds:
        if isinstance(kind, msgspec.inspect.CustomType) and not _known(kind.cls):
            raise DeclarationError(
                f"{function}: the parameter {parameter.name}: {type_text(hint)}: no text can be turned into that; "
                "take a str, a dataclass, or one of the types the README lists"
            )
    anything = any(isinstance(kind, msgspec.inspect.AnyType) for kind in kinds) or hint is object
    return Parameter(
        name=parameter.name,
        type=hint,
        required=parameter.default is parameter.empty,
        default=parameter.default,
        plain=all(_is_plain(kind) for kind in kinds if not isinstance(kind, msgspec.inspect.NoneType)),
        nullable=any(isinstance(kind, msgspec.inspect.NoneType) for kind in kinds),
        structured=anything or not all(isinstance(kind, _TEXTS) for kind in kinds),
        textual=anything or any(isinstance(kind, _TEXTS) for kind in kinds),
        anything=anything,
    )


def _kinds(info: msgspec.inspect.Type) -> list[msgspec.inspect.Type]:
    if isinstance(info, msgspec.inspect.Metadata):
        return _kinds(info.type)
    return list(info.types) if isinstance(info, msgspec.inspect.UnionType) else [info]


def _is_plain(kind: msgspec.inspect.Type) -> bool:
    return (
        isinstance(kind, msgspec.inspect.StrType)
        and kind.min_length is None
        and kind.max_length is None
        and kind.pattern is None
    )


def _known(cls: type) -> bool:
    return cls is object or issubclass(cls, PurePath)


def decode_custom(cls: type, value: object) -> Any:
    """What msgspec doesn't know by itself: paths."""
    if cls is object:
        return value
    if issubclass(cls, PurePath) and isinstance(value, str):
        if "\0" in value:
            raise ValueError("a path has no NUL")
        return cls(value)
    raise ValueError(
        f"Expected `{'path' if issubclass(cls, PurePath) else cls.__name__}`, got `{type(value).__name__}`"
    )


def _convert(parameter: Parameter, text: str, secrets: Collection[str]) -> Any:
    if parameter.nullable and text == "null":
        return None
    if parameter.plain:
        return text
    if parameter.structured and (not _takes_str(parameter) or text.lstrip()[:1] in ("[", "{")):
        try:
            value = msgspec.json.decode(text.encode("utf-8", "surrogatepass"))
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            if not parameter.textual:
                raise ArgumentError(_told(parameter, text, secrets, f"as JSON ({error})")) from None
        else:
            try:
                return _to(value, parameter)
            except msgspec.ValidationError as error:
                if not parameter.textual or text.lstrip()[:1] in ("[", "{"):
                    raise ArgumentError(_told(parameter, text, secrets, _problem(error, parameter))) from None
    if parameter.anything:
        return text
    try:
        return _to(text, parameter)
    except msgspec.ValidationError as error:
        raise ArgumentError(_told(parameter, text, secrets, _problem(error, parameter))) from None


def _to(value: object, parameter: Parameter) -> Any:
    converted = msgspec.convert(value, parameter.type, strict=False, str_keys=True, dec_hook=decode_custom)
    if parameter.structured:
        complete(converted)
    return converted


def _takes_str(parameter: Parameter) -> bool:
    return any(argument is str for argument in _members(parameter.type))


def _members(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) is Annotated:
        return _members(get_args(hint)[0])
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _told(parameter: Parameter, text: str, secrets: Collection[str], problem: str) -> str:
    # Cut short, a secret would not be recognised by what masks the error.
    found = "a secret" if any(secret in text for secret in secrets) else _short(repr(text))
    return f"param {parameter.name!r}: found {found}, expected {type_text(parameter.type)}{problem and ' ' + problem}"


def _problem(error: msgspec.ValidationError, parameter: Parameter) -> str:
    """What msgspec says beyond the type that is named anyway."""
    match = _PLACE.match(str(error))
    what, path = (match["what"], match["path"]) if match else (str(error), None)
    if path:
        return f"({what.replace('`', '')} at {path})"
    if match := _EXPECTED.match(what):
        rule = match["rule"].strip()
        return rule.replace("`", "") if rule and not rule.startswith(", got") else ""
    if what.startswith("Invalid enum value"):
        return ""
    return f"({what.replace('`', '')})"


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} characters)"


def type_text(hint: Any) -> str:
    """A type as people write it: `int`, `list[str] | None`, `"png" | "jpg"`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return type_text(arguments[0])
    if origin in (Union, types.UnionType):
        return " | ".join(type_text(argument) for argument in arguments)
    if origin is Literal:
        return " | ".join(repr(argument) for argument in arguments)
    if hint is None or hint is types.NoneType:
        return "None"
    if origin is not None:
        inner = ", ".join("…" if argument is ... else type_text(argument) for argument in arguments)
        return f"{type_text(origin)}[{inner}]"
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return " | ".join(repr(member.value) for member in hint)
    if isinstance(hint, type) and issubclass(hint, Path):
        return "Path"
    return getattr(hint, "__name__", None) or repr(hint)
