"""Rendering one template, in a sandbox. Runs in a process that renders nothing else; see `fork_server`."""

from __future__ import annotations

import json
import re
import shlex
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import jinja2
from jinja2.exceptions import SecurityError
from jinja2.sandbox import SandboxedEnvironment

from gbe_operative.rooted import PathError, Root
from gbe_operative_template.messages import Answer, Order

MAX_TEMPLATE: Final = 4 << 20
"""Bytes of a template, and of each that it includes."""

_UNDEFINED = re.compile(r"'([^']{1,200})' is undefined")


class TooMuch(Exception):
    """The text is larger than it may be."""


class Loader(jinja2.BaseLoader):
    """Templates that others include, extend or import: first beside the one that is rendered, then from the root."""

    def __init__(self, root: Root, directory: str | None) -> None:
        self._root = root
        self._directory = directory

    def get_source(self, environment: jinja2.Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        places = [template] if self._directory is None else [f"{self._directory}/{template}", template]
        problem: PathError | None = None
        for place in places:
            try:
                with self._root.open(place) as file:
                    return file.read(MAX_TEMPLATE).decode(), str(file.path), lambda: True
            except PathError as error:
                problem = problem or error
            except UnicodeDecodeError as error:
                raise jinja2.TemplateNotFound(template, f"{place!r} is not UTF-8") from error
        raise jinja2.TemplateNotFound(template, f"include: {problem}")


def environment(loader: jinja2.BaseLoader | None = None) -> SandboxedEnvironment:
    """Jinja as templates get it: nothing undefined passes, nothing reaches Python's insides, lines of tags vanish."""
    made = SandboxedEnvironment(
        loader=loader,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
        extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"],
    )
    made.filters["fromjson"] = made.filters["from_json"] = _from_json
    # Jinja's own writes < > & ' as \u003c and so on, for use within HTML.
    made.filters["tojson"] = made.filters["to_json"] = _to_json
    made.filters["quote"] = lambda value: shlex.quote(str(value))
    return made


def _from_json(value: Any) -> Any:
    if isinstance(value, jinja2.Undefined):
        str(value)  # raises what it has to say
    return json.loads(value)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def render(order: Order) -> Answer:
    """The text, or what is wrong with the template, with its line. Raises `MemoryError`."""
    name = order["name"]
    loader = Loader(Root(order["root"]), order["directory"])
    jinja = environment(loader)
    try:
        code = jinja.compile(order["template"], name, name)
        template = jinja.template_class.from_code(jinja, code, jinja.make_globals(None))
        parts: list[str] = []
        size = 0
        for part in template.generate(order["variables"]):
            size += len(part)
            if size > order["max_bytes"]:
                raise TooMuch
            parts.append(part)
        text = "".join(parts)
        if len(text.encode()) > order["max_bytes"]:
            raise TooMuch
        return {"text": text}
    except jinja2.TemplateSyntaxError as error:
        return {"error": f"{_short(error.name or name)}, line {error.lineno}: {error.message}", "kind": "syntax"}
    except TooMuch:
        return {"error": f"{name}: the text has more than {order['max_bytes']:,} bytes (the limit)", "kind": "failed"}
    except MemoryError:
        raise
    except Exception as error:
        answer: Answer = {"error": f"{_place(error, name, order['root'])}: {_what(error)}", "kind": "failed"}
        if isinstance(error, jinja2.UndefinedError) and (found := _UNDEFINED.search(str(error))):
            answer["undefined"] = found[1]
        return answer


def _what(error: Exception) -> str:
    text = str(error)
    if isinstance(error, jinja2.UndefinedError | jinja2.TemplateNotFound):
        return text
    if isinstance(error, SecurityError):
        return f"refused: {text}"
    if isinstance(error, RecursionError):
        return "it calls itself too often"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _place(error: Exception, name: str, root: str | None) -> str:
    """The innermost line of a template in the traceback, which Jinja has made to have them."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        of_root = root is not None and Path(frame.filename).is_relative_to(root) and not frame.filename.endswith(".py")
        if frame.filename == name or of_root:
            return f"{_short(frame.filename)}, line {frame.lineno}"
    return name


def _short(name: str) -> str:
    return name if len(name) <= 200 else "…" + name[-199:]
