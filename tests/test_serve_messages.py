"""The message table: what it allows, what it refuses and in which words, and that the document shows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flashlips_edge.serve import messages
from flashlips_edge.serve.messages import MessageError, read

WRONG = {
    "no JSON": ("interrupt", "message", "is not JSON"),
    "a list": ("[1]", "message", "is no object"),
    "no type": ("{}", "type", "it is one of hello, audio, say_silence, interrupt, play, say, subscribe, stats"),
    "another type": ('{"type": "shout"}', "type", 'type "shout" is unknown'),
    "a type that is a list": ('{"type": []}', "type", "type [] is unknown"),
    "another field": ('{"type": "interrupt", "now": true}', "now", 'interrupt: field "now" is unknown: it takes none'),
    "a missing field": ('{"type": "say"}', "text", "say: field text is missing: give text, 1 to 2000 characters"),
    "rate as text": ('{"type": "audio", "rate": "16000"}', "rate", 'audio: rate is "16000": it must be whole number, 8000 to 192000 Hz'),
    "rate too low": ('{"type": "audio", "rate": 1}', "rate", "audio: rate is 1: it must be"),
    "rate no number": ('{"type": "audio", "rate": NaN}', "rate", "audio: rate is NaN"),
    "channels true": ('{"type": "audio", "channels": true}', "channels", "channels is true: it must be whole number, 1 to 8"),
    "format": ('{"type": "audio", "format": "mp3"}', "format", 'format is "mp3": it must be "s16le" or "f32le"'),
    "frames": ('{"type": "subscribe", "frames": "png"}', "frames", '"none" or "jpeg" or "raw"'),
    "endless rate": (
        '{"type": "subscribe", "max_rate": Infinity}',
        "max_rate",
        "max_rate is Infinity: it must be number, 0.1 to 120 per second",
    ),
    "a number beyond any float": ('{"type": "audio", "rate": 1' + "0" * 400 + "}", "rate", "audio: rate is 1000"),
    "sound": ('{"type": "subscribe", "sound": 1}', "sound", "sound is 1: it must be true or false"),
    "empty text": ('{"type": "say", "text": ""}', "text", 'text is "": it must be text, 1 to 2000 characters'),
    "text too long": (json.dumps({"type": "say", "text": "a" * 2001}), "text", "it must be text, 1 to 2000 characters"),
    "deep": ("[" * 100_000, "message", "is not JSON"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_message_is_one_sentence(what: str) -> None:
    text, field, words = WRONG[what]
    with pytest.raises(MessageError) as refusal:
        read(text)
    assert refusal.value.field == field
    assert words in str(refusal.value)
    assert len(str(refusal.value)) < 300 and "\n" not in str(refusal.value)


def test_defaults_are_those_of_the_table() -> None:
    assert read('{"type": "audio"}') == ("audio", {"rate": 16_000, "channels": 1, "format": "s16le"})
    assert read('{"type": "subscribe", "frames": "jpeg"}') == ("subscribe", {"frames": "jpeg", "max_rate": 120.0, "sound": False})


@given(
    st.text()
    | st.dictionaries(st.sampled_from(["type", "rate", "text", "frames"]), st.text() | st.floats() | st.booleans()).map(json.dumps)
)
@example('{"type": "say", "text": "\\ud800"}')
def test_whatever_comes_is_followed_or_refused(text: str) -> None:
    try:
        kind, values = read(text)
    except MessageError as error:
        assert json.loads(messages.event("error", field=error.field, problem=str(error)))["problem"]
    else:
        assert values.keys() == messages.REQUESTS[kind].fields.keys()


def test_an_event_that_is_not_in_the_table_cannot_be_sent() -> None:
    for wrong in ({}, {"epoch": "2"}, {"epoch": 2, "more": 1}):
        with pytest.raises(ValueError, match="does not fit its row"):
            messages.event("interrupted", **wrong)


def test_the_header_is_laid_out_as_the_table_says() -> None:
    message = messages.binary(messages.JPEG, 3, 2**40, 512, 256, b"abc")
    at, values = 0, {}
    for name, kind, _ in messages.HEADER_FIELDS:
        length = int(kind[1:]) // 8
        values[name] = int.from_bytes(message[at : at + length], "little", signed=kind[0] == "i")
        at += length
    assert values == {"kind": 1, "epoch": 3, "pts_ns": 2**40, "width": 512, "height": 256, "length": 3}
    assert message[at:] == b"abc"


def test_the_document_shows_the_table(repo: Path) -> None:
    assert messages.tables() in (repo / "docs" / "serve.md").read_text(encoding="utf-8")
