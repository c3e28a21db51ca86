"""Forms with files: every part in order and whole, within bounds, or a refusal that says what is wrong."""

import os
from collections.abc import AsyncIterator, Sequence
from hashlib import sha256

import pytest
from tests.raw_http import chunk, head, send_raw
from tests.web.image_server import BYTES_MAX, MIB, ImageServer, image_server, part, parts, told

BOUNDARY = b"------------------------d74496d66958873e"
FORM = f"multipart/form-data; boundary={BOUNDARY.decode()}"
LARGE = os.urandom(3 * MIB)
_TRICKY = b"\r\n--" + BOUNDARY[:-1] + b"\r\n\r\n--\r\n--" + BOUNDARY[:10]
PROMPT = part("prompt", 'A cute 🍌\r\n"quoted"'.encode())


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ImageServer]:
    async with image_server(tmp_path_factory.mktemp("forms")) as running:
        yield running


async def answer_to(
    server: ImageServer, body: bytes, media_type: str = FORM, *, piece: int | None = None
) -> tuple[int, object]:
    """The answer to this body, sent whole, or chunked in pieces of so many bytes."""
    declared = ("Content-Type", media_type)
    if piece is None:
        request = head("POST", "/form", [declared, ("Content-Length", str(len(body)))]) + body
        return told(await send_raw(server.client, request))
    chunks = [chunk(body[at : at + piece]) for at in range(0, len(body), piece)]
    request = head("POST", "/form", [declared, ("Transfer-Encoding", "chunked")])
    return told(await send_raw(server.client, request, *chunks, chunk(b"")))


def read(*each: tuple[str, bytes | str]) -> tuple[int, Sequence[tuple[str, str]]]:
    """The answer where these parts were read."""
    return 200, [(name, value if isinstance(value, str) else sha256(value).hexdigest()) for name, value in each]


@pytest.mark.parametrize("piece", [None, 1009, 100_003])
@pytest.mark.parametrize("content", [b"", b"\r\n", _TRICKY, LARGE], ids=["empty", "a line", "like a boundary", "large"])
async def test_fields_and_files_arrive_whole_and_in_order(
    server: ImageServer, content: bytes, piece: int | None
) -> None:
    if len(content) == len(LARGE) and piece == 1009:
        piece = 65_537
    files = [part("image[]", each, filename="a.png", headers=["Content-Type: x/y"]) for each in (content, b"second")]
    body = parts(BOUNDARY, files[0], PROMPT, files[1], part("", b""), part("mask", content, filename=""))
    expected = read(
        ("image[]", content), ("prompt", 'A cute 🍌\r\n"quoted"'), ("image[]", b"second"), ("", ""), ("mask", content)
    )
    assert await answer_to(server, body, piece=piece) == expected


async def test_a_form_may_have_what_rfc_2046_lets_stand_around_it(server: ImageServer) -> None:
    body = b"\r\n" + parts(BOUNDARY, PROMPT, end=b"-- \r\nwhatever comes behind it")
    assert (await answer_to(server, body))[0] == 200
    assert await answer_to(server, parts(BOUNDARY, end=b"--")) == (200, [])
    quoted = f'Multipart/Form-Data; charset=utf-8; boundary="{BOUNDARY.decode()}"'
    assert (await answer_to(server, parts(BOUNDARY, PROMPT), quoted))[0] == 200
    assert (await answer_to(server, parts(b"a b", PROMPT), 'multipart/form-data; boundary="a b"'))[0] == 200


CUT = "The form is cut short: its last boundary is missing"
UNREADABLE = "The form cannot be read"
NO_NAME = "Each part of the form must have a Content-Disposition of form-data with a name"
FILE = part("image", b"a", filename="a.png")

REFUSED: dict[str, tuple[bytes, int, list[str]]] = {
    "nothing": (b"", 400, [CUT]),
    "without its last boundary": (parts(BOUNDARY, PROMPT, end=b""), 400, [CUT]),
    "one hyphen short": (parts(BOUNDARY, PROMPT, end=b"-"), 400, [CUT]),
    "cut short in a file": (parts(BOUNDARY, part("image", LARGE, filename="a"))[:-100], 400, [CUT]),
    "cut short in a header": (parts(BOUNDARY, PROMPT)[:60], 400, [CUT]),
    "of another boundary": (parts(b"other", PROMPT), 400, [UNREADABLE]),
    "with text before it": (b"a" + parts(BOUNDARY, PROMPT), 400, [UNREADABLE]),
    "in lines that end in LF": (parts(BOUNDARY, PROMPT).replace(b"\r\n", b"\n"), 400, [UNREADABLE]),
    "a header without a colon": (parts(BOUNDARY, b"Content-Disposition\r\n\r\n"), 400, [UNREADABLE]),
    "a long header": (parts(BOUNDARY, part("a" * 5000, b"")), 400, [UNREADABLE]),
    "many headers": (parts(BOUNDARY, part("a", b"", headers=["A: b"] * 8)), 400, [UNREADABLE]),
    "without headers": (parts(BOUNDARY, b"\r\n"), 400, [NO_NAME]),
    "a part without a name": (
        parts(BOUNDARY, b'Content-Disposition: form-data; filename="a"\r\n\r\n'),
        400,
        [NO_NAME],
    ),
    "an attachment": (parts(BOUNDARY, b'Content-Disposition: attachment; name="a"\r\n\r\n'), 400, [NO_NAME]),
    "a header twice": (
        parts(BOUNDARY, part("a", b"", headers=['content-disposition: form-data; name="b"'])),
        400,
        ["A part of the form has the same header twice"],
    ),
    "in base64": (
        parts(BOUNDARY, part("a", b"", headers=["Content-Transfer-Encoding: base64"])),
        400,
        ["Send the parts of the form as they are, without Content-Transfer-Encoding"],
    ),
    "text that is not UTF-8": (parts(BOUNDARY, part("a", b"\xff")), 400, ["The text of the form is not UTF-8"]),
    "a name that is not UTF-8": (
        parts(BOUNDARY, b'Content-Disposition: form-data; name="\xff"\r\n\r\n'),
        400,
        ["The text of the form is not UTF-8"],
    ),
    "18 files": (
        parts(BOUNDARY, *[FILE] * 18),
        422,
        ["The request is not valid", "#: A form may have at most 17 files"],
    ),
    "51 fields": (
        parts(BOUNDARY, *[FILE] * 17, *[part("a", b"")] * 51),
        422,
        ["The request is not valid", "#: A form may have at most 50 fields"],
    ),
    "too much text": (
        parts(BOUNDARY, *[part("a", b"a" * 40_000)] * 2),
        413,
        ["The text of the form is larger than 64 KiB"],
    ),
    "too much": (parts(BOUNDARY, part("a", bytes(BYTES_MAX), filename="")), 413, ["The body is larger than 24 MiB"]),
}


@pytest.mark.parametrize("piece", [None, 300_000])
@pytest.mark.parametrize("case", REFUSED)
async def test_any_other_form_is_refused_with_a_sentence(server: ImageServer, case: str, piece: int | None) -> None:
    body, status, sentences = REFUSED[case]
    assert await answer_to(server, body, piece=piece) == (status, sentences)


async def test_a_file_beyond_its_own_bound_is_a_413(server: ImageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.web.multipart.IMAGE_BYTES_MAX", 2 * MIB)
    body = parts(BOUNDARY, part("image", LARGE, filename=""))
    assert await answer_to(server, body) == (413, ["A file of the form is larger than 2 MiB"])


@pytest.mark.parametrize(
    ("media_type", "status", "sentence"),
    [
        ("multipart/mixed; boundary=a", 415, "Send the body as Content-Type: multipart/form-data"),
        ("application/json", 415, "Send the body as Content-Type: multipart/form-data"),
        ("", 415, "Send the body as Content-Type: multipart/form-data"),
        *(
            (f"multipart/form-data{each}", 400, "The Content-Type must have one boundary, of 1 to 70 characters")
            for each in ("", "; boundary=", '; boundary=""', f"; boundary={'a' * 71}", "; boundary=a\u00e9")
        ),
        (
            "multipart/form-data; boundary=a; boundary=b",
            400,
            "The Content-Type must have one boundary, of 1 to 70 characters",
        ),
    ],
)
async def test_a_form_without_one_good_boundary_is_refused(
    server: ImageServer, media_type: str, status: int, sentence: str
) -> None:
    assert await answer_to(server, parts(b"a", PROMPT), media_type) == (status, [sentence])


async def test_nothing_of_a_form_is_kept_once_it_was_answered(server: ImageServer) -> None:
    for last in (b"", b"\xff"):
        body = parts(BOUNDARY, part("image", LARGE, filename=""), part("a", last))
        assert (await answer_to(server, body))[0] in {200, 400}
    assert server.blobs.files.taken == server.blobs.memory.taken == 0
