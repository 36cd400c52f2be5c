"""The messages of the WebSocket: the one table that the service checks against and that docs/serve.md shows."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flashlips_edge.live.pcm import MAX_CHANNELS, RATES_HZ

VERSION = 1
MAX_MESSAGE_BYTES = 1 << 20  # 5 s of stereo float32 at 24 kHz; whatever is larger closes the connection with code 1009
MAX_TEXT = 2000
RATE_LIMITS = (0.1, 120.0)
PCM_FORMATS = {"s16le": np.dtype("<i2"), "f32le": np.dtype("<f4")}
FRAME_KINDS = ("none", "jpeg", "raw")

JPEG, RAW, SOUND = 1, 2, 3  # kinds of binary messages from the service
HEADER = struct.Struct("<IIqIII")
HEADER_FIELDS = (
    ("kind", "u32", "1 JPEG picture, 2 raw picture, 3 sound"),
    ("epoch", "u32", "grows by 1 with each interruption"),
    ("pts_ns", "i64", "media time in nanoseconds, common to picture and sound"),
    ("width", "u32", "pixels; of sound: the sample rate in Hz"),
    ("height", "u32", "pixels; of sound: the number of channels"),
    ("length", "u32", "bytes that follow: a JPEG file, RGB bytes row by row, or 16 bit little-endian samples"),
)


class MessageError(ValueError):
    """A message that cannot be followed; `field` names what is wrong in it, the text is one sentence."""

    def __init__(self, field: str, sentence: str):
        super().__init__(sentence)
        self.field = field


@dataclass(frozen=True)
class Field:
    """One field of a message: what it may be, in words and as a check. A field without a default must be given."""

    allowed: str
    check: Callable[[Any], bool]
    default: Any = None
    required: bool = False


@dataclass(frozen=True)
class Message:
    """What a message asks for, or what an event tells."""

    meaning: str
    fields: dict[str, Field] = field(default_factory=dict)


def _text(longest: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and 1 <= len(value) <= longest


def _number(lowest: float, highest: float, whole: bool) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        kinds = (int,) if whole else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool) and lowest <= value <= highest

    return check


def _one_of(values: tuple[str, ...]) -> Field:
    return Field(" or ".join(f'"{value}"' for value in values), lambda value: isinstance(value, str) and value in values, values[0])


REQUESTS = {
    "hello": Message(
        "the first message where the service wants a token; answered by the event hello",
        {"token": Field("text", _text(1000))},
    ),
    "audio": Message(
        "how the binary messages that follow hold sound",
        {
            "rate": Field(f"whole number, {RATES_HZ[0]} to {RATES_HZ[1]} Hz", _number(*RATES_HZ, whole=True), 16_000),
            "channels": Field(f"whole number, 1 to {MAX_CHANNELS}", _number(1, MAX_CHANNELS, whole=True), 1),
            "format": _one_of(tuple(PCM_FORMATS)),
        },
    ),
    "say_silence": Message("all that was sent is the whole sentence: wait for no more"),
    "interrupt": Message("be silent at once; the mouth closes"),
    "play": Message("play another clip of the avatar once", {"clip": Field("name of a clip, see hello", _text(200), required=True)}),
    "say": Message(
        "speak this text; needs a service with --voice",
        {"text": Field(f"text, 1 to {MAX_TEXT} characters", _text(MAX_TEXT), required=True)},
    ),
    "subscribe": Message(
        "what to send to this client; at first it is events alone",
        {
            "frames": _one_of(FRAME_KINDS),
            "max_rate": Field(
                f"number, {RATE_LIMITS[0]:g} to {RATE_LIMITS[1]:g} per second", _number(*RATE_LIMITS, whole=False), RATE_LIMITS[1]
            ),
            "sound": Field("true or false", lambda value: isinstance(value, bool), False),
        },
    ),
    "stats": Message("answered by the event stats"),
}

EVENTS = {
    "hello": Message(
        "what is served; before it, where a token is wanted, no other message is followed",
        {
            "version": Field(f"{VERSION}: of this table", lambda value: value == VERSION),
            "client": Field("this connection's name: an offer that holds it ends with this connection", _text(200)),
            "width": Field("pixels", _number(1, 1e5, whole=True)),
            "height": Field("pixels", _number(1, 1e5, whole=True)),
            "frame_rate": Field("frames per second", _number(0, 1e3, whole=False)),
            "sample_rate": Field("Hz, of the sound as heard", _number(1, 1e6, whole=True)),
            "clips": Field("names for play", lambda value: isinstance(value, list)),
            "voice": Field("whether say works", lambda value: isinstance(value, bool)),
            "webrtc": Field("whether POST /offer works", lambda value: isinstance(value, bool)),
            "synthetic": Field("always true: tell those who watch", lambda value: value is True),
        },
    ),
    "speaking": Message("the face began to speak", {"media_ns": Field("media time", _number(0, 1e30, whole=True))}),
    "silent": Message("the face has fallen silent", {"media_ns": Field("media time", _number(0, 1e30, whole=True))}),
    "interrupted": Message("somebody interrupted it", {"epoch": Field("the new epoch", _number(0, 1e30, whole=True))}),
    "level": Message("it was late and did less, or is back", {"level": Field("0 is full quality", _number(0, 100, whole=True))}),
    "clip_ended": Message("a clip that was played is over", {"clip": Field("its name", _text(200))}),
    "problem": Message(
        "something is wrong, or no more",
        {
            "source": Field("stage, source or sink", _text(200)),
            "problem": Field("one sentence, or null once it is over", lambda value: value is None or isinstance(value, str)),
        },
    ),
    "stats": Message(
        "the session's figures",
        {
            "media_ns": Field("media time", _number(0, 1e30, whole=True)),
            "level": Field("0 is full quality", _number(0, 100, whole=True)),
            "epoch": Field("grows by 1 with each interruption", _number(0, 1e30, whole=True)),
            "speaking": Field("true or false", lambda value: isinstance(value, bool)),
            "counters": Field("by stage: entered, left, dropped, repeated, late", lambda value: isinstance(value, dict)),
            "gauges": Field("by name, the unit in it", lambda value: isinstance(value, dict)),
            "restarts": Field("by stage", lambda value: isinstance(value, dict)),
            "problems": Field("by source: one sentence", lambda value: isinstance(value, dict)),
            "clients": Field("connected now, by kind", lambda value: isinstance(value, dict)),
            "dropped": Field("frames and blocks of sound that this client was too slow for", _number(0, 1e30, whole=True)),
        },
    ),
    "error": Message(
        "a message of yours was not followed; the connection stays",
        {
            "field": Field("what is wrong in it", _text(200)),
            "problem": Field("one sentence", _text(2000)),
        },
    ),
}


def read(text: str) -> tuple[str, dict[str, Any]]:
    """The type and the fields, defaults filled in, of a client's text message. MessageError says what is wrong."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise MessageError("message", f"the message {_short(text)} is not JSON: send an object with a type") from None
    if not isinstance(message, dict):
        raise MessageError("message", f"the message {_short(text)} is no object: send one with a type")
    kind = message.pop("type", None)
    if not isinstance(kind, str) or kind not in REQUESTS:
        raise MessageError("type", f"type {_short(kind)} is unknown: it is one of {', '.join(REQUESTS)}")
    allowed = REQUESTS[kind].fields
    for name in message:
        if name not in allowed:
            takes = ", ".join(allowed) or "none"
            raise MessageError(name[:200] or "message", f"{kind}: field {_short(name)} is unknown: it takes {takes}")
    for name, rule in allowed.items():
        if name not in message:
            if rule.required:
                raise MessageError(name, f"{kind}: field {name} is missing: give {rule.allowed}")
            message[name] = rule.default
        elif not rule.check(message[name]):
            raise MessageError(name, f"{kind}: {name} is {_short(message[name])}: it must be {rule.allowed}")
    return kind, message


def event(kind: str, **fields: Any) -> str:
    """The text of an event. It must be in the table, with all of its fields (ValueError)."""
    rules = EVENTS[kind].fields
    if fields.keys() != rules.keys() or not all(rules[name].check(value) for name, value in fields.items()):
        raise ValueError(f"event {kind} does not fit its row in the table: {fields}")
    return json.dumps({"type": kind, **fields})


def binary(kind: int, epoch: int, pts_ns: int, width: int, height: int, body: bytes) -> bytes:
    """A binary message: the header and what it announces."""
    return HEADER.pack(kind, epoch, pts_ns, width, height, len(body)) + body


def tables() -> str:
    """The message table in Markdown, as it stands in docs/serve.md."""
    lines = ["### From a client", "", "| type | field | what it may be | default |", "|---|---|---|---|"]
    for kind, message in REQUESTS.items():
        lines.append(f"| **{kind}** | | {message.meaning} | |")
        for name, rule in message.fields.items():
            default = "must be given" if rule.required else "none" if rule.default is None else f"`{json.dumps(rule.default)}`"
            lines.append(f"| | {name} | {rule.allowed} | {default} |")
    lines += ["", "### Events from the service", "", "| type | field | meaning |", "|---|---|---|"]
    for kind, message in EVENTS.items():
        lines.append(f"| **{kind}** | | {message.meaning} |")
        lines += [f"| | {name} | {rule.allowed} |" for name, rule in message.fields.items()]
    lines += [
        "",
        "### Header of a binary message from the service",
        "",
        "| byte | field | type, little-endian | meaning |",
        "|---|---|---|---|",
    ]
    at = 0
    for name, kind, meaning in HEADER_FIELDS:
        lines.append(f"| {at} | {name} | {kind} | {meaning} |")
        at += int(kind[1:]) // 8
    lines.append(f"| {at} | | | what the header announced |")
    return "\n".join(lines)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


if __name__ == "__main__":
    print(tables())
