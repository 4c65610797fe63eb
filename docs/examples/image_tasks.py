"""Tasks for image-batch.yaml: pictures with nothing but the standard library.

cd docs/examples && gbe run --app image_tasks image-batch.yaml
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from gbe_operative_python import App, File, Reject, current

app = App(slots=2)

Length = Annotated[int, msgspec.Meta(ge=1, le=2000)]
"""Pixels. Whoever asks for more is told."""

SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass
class Colour:
    red: int
    green: int
    blue: int


@dataclass
class Picture:
    width: int
    height: int
    rows: list[bytes]
    """Three bytes per pixel."""


@app.task
def draw_image(width: Length, height: Length, colour: Colour) -> File:
    """A gradient from black to the colour."""
    row = b"".join(
        bytes(channel * x // width for channel in (colour.red, colour.green, colour.blue)) for x in range(width)
    )
    print(f"{width}x{height} in {colour}")
    return save(Picture(width, height, [row] * height), "drawn.png")


@app.task
def resize_image(image_ref: Path, width: Length) -> File:
    """The nearest pixel counts; the proportions stay."""
    source = load(image_ref)
    height = max(1, source.height * width // source.width)
    columns = [3 * (x * source.width // width) for x in range(width)]
    rows = []
    for y in range(height):
        row = source.rows[y * source.height // height]
        rows.append(b"".join(row[at : at + 3] for at in columns))
        if y % 50 == 49:
            current().progress(f"{100 * y // height} %")
    print(f"{source.width}x{source.height} -> {width}x{height}")
    return save(Picture(width, height, rows), "resized.png")


@app.task
def contact_sheet(first_ref: Path, second_ref: Path, third_ref: Path) -> File:
    """One below the other."""
    pictures = [load(path) for path in (first_ref, second_ref, third_ref)]
    width = max(picture.width for picture in pictures)
    rows = [row.ljust(3 * width, b"\xff") for picture in pictures for row in picture.rows]
    return save(Picture(width, len(rows), rows), "sheet.png")


@app.task
def summarise_image(image_ref: Path) -> dict[str, int | dict[str, int]]:
    """How large, and which colour on average."""
    picture = load(image_ref)
    pixels = picture.width * picture.height
    average = [sum(sum(row[channel::3]) for row in picture.rows) // pixels for channel in range(3)]
    return {
        "width": picture.width,
        "height": picture.height,
        "bytes": image_ref.stat().st_size,
        "average": dict(zip(("red", "green", "blue"), average, strict=True)),
    }


def save(picture: Picture, name: str) -> File:
    """The picture as a PNG file, which becomes an artifact."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", picture.width, picture.height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in picture.rows))
    path = current().work_dir / name
    path.write_bytes(SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    return File(path)


def load(path: Path) -> Picture:
    """A PNG file as `save` writes it; other kinds of PNG need a library for pictures."""
    data = path.read_bytes()
    if not data.startswith(SIGNATURE):
        raise Reject(f"{path.name} is no PNG file")
    at, header, pixels = len(SIGNATURE), b"", b""
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        header, pixels = (body, pixels) if kind == b"IHDR" else (header, pixels + body if kind == b"IDAT" else pixels)
        at += size + 12
    width, height, *form = struct.unpack(">IIBBBBB", header)
    if form != [8, 2, 0, 0, 0]:
        raise Reject(f"{path.name} is no PNG file of 8-bit RGB pixels")
    raw, line = zlib.decompress(pixels), 3 * width + 1
    if any(raw[y * line] for y in range(height)):
        raise Reject(f"{path.name} is a PNG file with filters")
    return Picture(width, height, [raw[y * line + 1 : (y + 1) * line] for y in range(height)])
