"""From the bytes of a document to its nodes: what is text at all, and whether it is JSON or YAML."""

from __future__ import annotations

import re
from typing import Final

from gbe_jobs_domain.collector import Collector
from gbe_jobs_domain.json_nodes import parse_json
from gbe_jobs_domain.nodes import Node, TooLarge, Unreadable

# What neither YAML nor JSON has a place for. A file that holds one is hardly a text.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_LOOKS_LIKE_JSON: Final = re.compile(r'[ \t\r\n]*\{[ \t\r\n]*["}]|[ \t\r\n]*\[')


def readable(text: bytes | str, collector: Collector, max_bytes: int) -> str:
    """The document as text. Raises `DefinitionErrors` for what is none, or larger than `max_bytes`."""
    # Characters are at least a byte each, so a str that is too long needs no encoding to be refused.
    if len(text) > max_bytes:
        collector.at(0, 0, f"larger than {max_bytes:,} bytes", "store large values and pass references")
        raise collector.all()
    try:
        encoded = text if isinstance(text, bytes) else text.encode()
        decoded = encoded.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8-sig")
        found = f"byte 0x{error.object[error.start]:02x}"
        collector.at(*_place(before, len(before)), f"not UTF-8: {found}", "is it a text file?")
        raise collector.all() from None
    except UnicodeEncodeError as error:
        collector.at(*_place(error.object, error.start), "half a surrogate pair is no character")
        raise collector.all() from None
    if control := _CONTROL.search(decoded):
        character = f"U+{ord(control[0]):04X}"
        collector.at(*_place(decoded, control.start()), f"control character {character}", "is it a text file?")
        raise collector.all()
    return decoded


def _place(text: str, at: int) -> tuple[int, int]:
    before = text[:at]
    return before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1


def parse(text: str, collector: Collector) -> Node | None:
    """JSON where it says it is, YAML otherwise.

    What begins like JSON may still be YAML's flow style: the complaint is JSON's only if YAML can't read it either.
    """
    named_json = collector.source.endswith(".json")
    if named_json or _LOOKS_LIKE_JSON.match(text):
        found = Collector(collector.source)
        try:
            root = parse_json(text, found)
        except Unreadable as error:
            if named_json or isinstance(error, TooLarge) or (root := _flow_style(text, collector)) is None:
                collector.errors += found.errors
                raise
            return root
        collector.errors += found.errors
        collector.omitted += found.omitted
        return root
    return _parse_yaml(text, collector)


def _flow_style(text: str, collector: Collector) -> Node | None:
    found = Collector(collector.source)
    try:
        root = _parse_yaml(text, found)
    except Unreadable:
        return None
    collector.errors += found.errors
    collector.omitted += found.omitted
    return root


def _parse_yaml(text: str, collector: Collector) -> Node | None:
    from gbe_jobs_domain.yaml_nodes import parse_yaml  # PyYAML takes longer to import than the rest together

    return parse_yaml(text, collector)
