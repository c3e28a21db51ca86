"""Unusual forms in which providers send an image: each is taken, and costs the one call that was sent."""

import base64
import gzip
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.providers.failures import Dialect
from tests.providers.remote import RED_PNG
from tests.standins import gemini, openai
from tests.standins.wire import Reply, json_reply

IMAGE = RED_PNG
_TEXT = base64.b64encode(IMAGE).decode()
_FILE = "/files/1024x1024.png"


@dataclass(frozen=True)
class Taken:
    """A provider's reply to the call for an image, and to the downloads that it leads to."""

    name: str
    gemini: Reply | None = None
    openai: Reply | None = None
    files: Sequence[Reply] = (Reply(IMAGE),)

    def reply(self, dialect: Dialect) -> Reply | None:
        return self.gemini if dialect == "gemini" else self.openai


def changed(name: str, change: Callable[[Reply], Reply]) -> Taken:
    """The usual reply, changed on its way."""
    return Taken(name, change(gemini.drawn(IMAGE)), change(openai.in_place(IMAGE)))


def spelled(name: str, text: str) -> Taken:
    """The usual reply, with this text in place of the base64."""
    return Taken(name, _google({"inlineData": {"data": text}}), _endpoint({"b64_json": text}))


def encoded(name: str, encode: Callable[[bytes], bytes], header: str) -> Taken:
    def change(reply: Reply) -> Reply:
        return replace(reply, content=encode(reply.content), headers={**reply.headers, "Content-Encoding": header})

    return changed(name, change)


def at(name: str, url: str, *files: Reply) -> Taken:
    """The URL of the image, and what is first sent for it. What is requested after that is the image."""
    return Taken(name, openai=_endpoint({"url": url}), files=[*files, *[Reply(IMAGE)] * 2])


def raw_deflate(content: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(content) + stream.flush()


def _google(*parts: Any, **candidate: Any) -> Reply:
    return json_reply({"candidates": [_candidate(*parts, **candidate)]})


def _candidate(*parts: Any, **more: Any) -> dict[str, Any]:
    return {"content": {"parts": parts}, "finishReason": "STOP", **more}


def _endpoint(*images: Any, **beside: Any) -> Reply:
    return json_reply({"data": images, **beside})


def _redirect(target: str) -> Reply:
    return Reply(b"", 302, {"Location": target})


_PART, _ITEM = {"inlineData": {"data": _TEXT}}, {"b64_json": _TEXT}
_SKETCH = {"inlineData": {"data": _TEXT}, "thought": True}
_BOM = b"\xef\xbb\xbf"

ON_ITS_WAY = [
    changed("status 201", lambda reply: replace(reply, status=201)),
    changed("status 202", lambda reply: replace(reply, status=202)),
    changed("a byte order mark", lambda reply: replace(reply, content=_BOM + reply.content)),
    changed("white space around the JSON", lambda reply: replace(reply, content=b"\r\n " + reply.content + b"\n")),
    changed("a list of one", lambda reply: replace(reply, content=_BOM + b" [" + reply.content + b"]\n")),
    changed("another media type", lambda reply: replace(reply, headers={"Content-Type": "text/html"})),
    changed("the image as the body", lambda _: Reply(IMAGE, 200, {"Content-Type": "image/png"})),
    encoded("gzip", gzip.compress, "gzip"),
    encoded("x-gzip", gzip.compress, "X-GZip"),
    encoded("deflate", zlib.compress, "deflate"),
    encoded("deflate without a header", raw_deflate, "deflate"),
    encoded("compressed twice", lambda content: gzip.compress(zlib.compress(content)), "deflate, gzip"),
    encoded("identity", bytes, "identity"),
    encoded("an encoding that was not applied", bytes, "gzip"),
    encoded("an unknown encoding that was not applied", bytes, "br"),
]
SPELLED = [
    spelled("the head of a data: URL", f"data:image/png;base64,{_TEXT}"),
    spelled("a head with parameters", f"data:image/png;charset=utf-8;base64,{_TEXT}"),
    spelled("line breaks", "\r\n".join(_TEXT[at : at + 76] for at in range(0, len(_TEXT), 76)) + "\n"),
    spelled("white space", f" {_TEXT[:100]} \t{_TEXT[100:]} "),
    spelled("the other alphabet", base64.urlsafe_b64encode(IMAGE).decode()),
    spelled(
        "the other alphabet and line breaks",
        base64.encodebytes(IMAGE).translate(bytes.maketrans(b"+/", b"-_")).decode(),
    ),
    spelled("no padding", _TEXT.rstrip("=")),
]
BESIDE = [
    Taken("null beside it", _google(None, _PART, None), _endpoint(None, _ITEM, None)),
    Taken("others beside it", _google(1, "a", [], {}, _PART), _endpoint(1, "a", [], {}, _ITEM)),
    Taken("an empty image before it", _google(_PART, {"inlineData": {"data": ""}}), _endpoint({"b64_json": ""}, _ITEM)),
    Taken("fields of other types", _google({**_PART, "thought": {}}, finishReason=1), _endpoint({**_ITEM, "url": 1})),
    Taken("no error", json_reply({"candidates": [_candidate(_PART)], "error": None}), _endpoint(_ITEM, error=None)),
]
OPENAI = [
    Taken("an empty b64_json and a URL", openai=_endpoint({"b64_json": "", "url": _FILE})),
    Taken("a null b64_json and a URL", openai=_endpoint({"b64_json": None, "url": _FILE})),
    Taken("a b64_json of another type and a URL", openai=_endpoint({"b64_json": 1, "url": _FILE})),
    Taken("a data: URL", openai=_endpoint({"url": f"data:image/png;base64,{_TEXT}"})),
    Taken("a data: URL that is escaped", openai=_endpoint({"url": f"DATA:;base64,{_TEXT.replace('+', '%2B')}"})),
    Taken("images in place of data", openai=json_reply({"images": [{"url": _FILE}], "seed": 1})),
    Taken("images and empty data", openai=_endpoint(images=[_ITEM])),
    at("a relative URL", f"../..{_FILE}"),
    at("a URL with white space", f" {_FILE}\n"),
    at("a redirect", "/files/1.png", _redirect(_FILE)),
    at("three redirects", "/files/1", _redirect("2"), _redirect("3"), _redirect("4")),
    at("a compressed file", _FILE, Reply(gzip.compress(IMAGE), 200, {"Content-Encoding": "gzip"})),
    at("a file that fails twice", _FILE, gemini.html(500), Reply(is_reset=True)),
]
GEMINI = [
    Taken("inline_data", _google({"inline_data": {"mime_type": "image/png", "data": _TEXT}}, finish_reason="STOP")),
    Taken("only a sketch", _google({"text": "Thinking", "thought": True}, _SKETCH)),
    Taken("a sketch and an empty image", _google(_SKETCH, {"inlineData": {"data": ""}})),
    Taken("a sketch after the image", _google(_PART, {**_SKETCH, "inlineData": {"data": "AAAA"}})),
    Taken("candidates without content", json_reply({"candidates": [{}, {"content": None}, _candidate(_PART)]})),
    Taken("another reason to finish", _google(_PART, finishReason="MAX_TOKENS")),
    Taken("feedback without a reason", json_reply({"candidates": [_candidate(_PART)], "promptFeedback": {}})),
]
TAKEN = [*ON_ITS_WAY, *SPELLED, *BESIDE, *OPENAI, *GEMINI]
