"""What an ONNX graph takes and gives, read off its file without loading the network.

The file is one message of protocol buffers (onnx.proto): ModelProto.graph, then GraphProto.input and output, each a name and the type
TypeProto.tensor_type.shape.dim. All else, weights above all, is passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

Shape = tuple[int | str, ...]  # an axis that is free has a name, or ""

NUMBER, EIGHT_BYTES, CONTENT, FOUR_BYTES = 0, 1, 2, 5  # wire types
GRAPH, INPUT, OUTPUT = (7, CONTENT), (11, CONTENT), (12, CONTENT)
NAME, TYPE, TENSOR, SHAPE, DIM = (1, CONTENT), (2, CONTENT), (1, CONTENT), (2, CONTENT), (1, CONTENT)
DIM_VALUE, DIM_NAME = (1, NUMBER), (2, CONTENT)
MOST_NAME = 1000  # bytes

Field = tuple[int, int]  # its number and wire type


def read(path: Path) -> tuple[dict[str, Shape], dict[str, Shape]]:
    """The inputs and the outputs that the graph in the file declares: shapes by tensor name. Raises ValueError where it is none."""
    ends: dict[Field, dict[str, Shape]] = {INPUT: {}, OUTPUT: {}}
    with open(path, "rb") as file:
        for graph in _messages(file, os.fstat(file.fileno()).st_size, GRAPH):
            for field, end in _fields(file, graph):
                if field in ends:
                    name, shape = _tensor(file, end)
                    ends[field][name] = shape
    return ends[INPUT], ends[OUTPUT]


def _tensor(file: BinaryIO, end: int) -> tuple[str, Shape]:
    name: str = ""
    shape: Shape = ()
    for field, stop in _fields(file, end):
        if field == NAME:
            name = _text(file, stop)
        elif field == TYPE:
            shape = tuple(_axis(file, dim) for dim in _messages(file, stop, TENSOR, SHAPE, DIM))
    return name, shape


def _axis(file: BinaryIO, end: int) -> int | str:
    for field, value in _fields(file, end):
        if field == DIM_VALUE:
            return value
        if field == DIM_NAME:
            return _text(file, value)
    return ""


def _messages(file: BinaryIO, end: int, field: Field, *inner: Field) -> Iterator[int]:
    """Where each message ends that lies under these fields, one in the other; the file stands at its start."""
    for found, stop in _fields(file, end):
        if found == field and inner:
            yield from _messages(file, stop, *inner)
        elif found == field:
            yield stop


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[Field, int]]:
    """The fields of a message that ends at `end`, each with its number, or with where its content ends; the file stands at its start."""
    while file.tell() < end:
        number, kind = divmod(_number(file), 8)
        value = _number(file) if kind in (NUMBER, CONTENT) else {EIGHT_BYTES: 8, FOUR_BYTES: 4}.get(kind, end)
        stop = file.tell() + (value if kind != NUMBER else 0)
        if number == 0 or stop > end:
            raise ValueError("not a message of protocol buffers")
        yield (number, kind), value if kind == NUMBER else stop
        file.seek(stop)


def _number(file: BinaryIO) -> int:
    """A varint: seven bits a byte, the lowest first."""
    number = 0
    for shift in range(0, 64, 7):
        byte = file.read(1)
        if not byte:
            break
        number |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return number
    raise ValueError("not a message of protocol buffers")


def _text(file: BinaryIO, end: int) -> str:
    if end - file.tell() > MOST_NAME:
        raise ValueError(f"a name of more than {MOST_NAME} bytes")
    return file.read(end - file.tell()).decode()
