"""Request bodies: one strict JSON text of at most 64 KiB, or a refusal that names the rule that it breaks."""

import gzip
import json
from base64 import b64encode
from io import BytesIO

import httpx2
import pytest
from app.core.schemas import Body
from PIL import Image
from pydantic import ValidationError
from tests.harness import Account, Key, generate, sign_up
from tests.raw_http import JSON_TYPE, chunk, head, send_raw

BODY_BYTES_MAX = 64 * 1024
GOOD = b'{"prompt": "A cute banana"}'

NOT_ONE_JSON_TEXT = {
    "empty": b"",
    "blank": b" \n",
    "cut short": b'{"prompt": "A cute',
    "two texts": GOOD + GOOD,
    "trailing comma": b'{"prompt": "A cute banana",}',
    "single quotes": b"{'prompt': 'A cute banana'}",
    "control character in a string": b'{"prompt": "A cute\nbanana"}',
    "60,000 brackets": b"[" * 60_000,
    "60,000 objects": b'{"":' * 15_000,
    "BOM": b"\xef\xbb\xbf" + GOOD,
    "UTF-16": GOOD.decode().encode("utf-16"),
    "UTF-16 without BOM": GOOD.decode().encode("utf-16-le"),
    "UTF-32": GOOD.decode().encode("utf-32"),
    "Latin-1": '{"prompt": "Käse"}'.encode("latin-1"),
    "surrogate in UTF-8": b'{"prompt": "\xed\xa0\x80"}',
    "overlong UTF-8": b'{"prompt": "\xc0\x80"}',
    "gzip": gzip.compress(GOOD),
}

NUMBERS_OUT_OF_RANGE = {
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "-Infinity": b"-Infinity",
    "1e999": b"1e999",
    "-1e999": b"-1e999",
    "5,000 digits": b"9" * 5_000,
    "5,000 digits and a fraction": b"9" * 5_000 + b".5",
    "310 digits": b"-1" + b"0" * 310,
}

DUPLICATE_KEYS = {
    "same value": b'{"prompt": "a", "prompt": "a"}',
    "other value": b'{"prompt": "a", "prompt": "b"}',
    "spelled with an escape": b'{"prompt": "a", "prom\\u0070t": "b"}',
    "nested": b'{"prompt": "a", "size": {"a": 1, "a": 2}}',
    "deeper in an array": b'{"prompt": [[{"a": [{"b": 1, "b": 1}]}]]}',
}

NOT_AN_OBJECT = {
    "null": b"null",
    "array": b"[]",
    "array of it": b"[" + GOOD + b"]",
    "string": b'"prompt"',
    "number": b"1",
    "true": b"true",
    "900 brackets": b"[" * 900 + b"]" * 900,
}

WRONG_FIELDS = {
    "none": ("#/prompt", b"{}"),
    "null": ("#/prompt", b'{"prompt": null}'),
    "number": ("#/prompt", b'{"prompt": 1}'),
    "true": ("#/prompt", b'{"prompt": true}'),
    "array": ("#/prompt", b'{"prompt": ["A cute banana"]}'),
    "number for a size": ("#/size", b'{"prompt": "a", "size": 1024}'),
    "U+0000": ("#/prompt", b'{"prompt": "a\\u0000b"}'),
    "lone high surrogate": ("#/prompt", b'{"prompt": "a\\ud800"}'),
    "lone low surrogate": ("#/prompt", b'{"prompt": "\\udfffa"}'),
    "surrogates the wrong way round": ("#/prompt", b'{"prompt": "\\udc00\\ud800"}'),
    "surrogate in a size": ("#/size", b'{"prompt": "a", "size": "\\ud800"}'),
    "unknown field": ("#", b'{"prompt": "a", "role": "admin"}'),
    "unknown field in upper case": ("#", b'{"prompt": "a", "Size": "64x64"}'),
    "unknown field with a surrogate": ("#", b'{"prompt": "a", "\\ud800": 1}'),
    "6,000 unknown fields": ("#", b'{"prompt":"a",%b}' % b",".join(b'"%x":1' % n for n in range(6_000))),
}

OTHER_MEDIA_TYPES = [
    None,
    "",
    "text/plain",
    "text/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/json-patch+json",
    "application/jsonx",
    "text/plain, application/json",
]

OTHER_CHARSETS = ["utf-16", "iso-8859-1", '"UTF-16"', "utf-8; charset=utf-16", "utf-8x", ""]

JSON_MEDIA_TYPES = [
    "application/json",
    "APPLICATION/JSON",
    "application/json;charset=utf-8",
    "application/json ; charset=UTF-8",
    'application/json; charset="utf-8"',
    "application/json; charset=utf8",
    "application/json; v=1",
    "application/json;odata=verbose;charset=utf-8",
    "application/json;",
]


@pytest.fixture(scope="module")
async def account(client: httpx2.AsyncClient) -> Account:
    return await sign_up(client)


@pytest.fixture(scope="module")
async def key(account: Account) -> Key:
    return await account.create_key()


async def order(
    client: httpx2.AsyncClient, key: Key, body: bytes, *, media_type: str | None = "application/json"
) -> httpx2.Response:
    declared = {} if media_type is None else {"Content-Type": media_type}
    return await client.post("/v1/generate", content=body, headers={**key.headers, **declared})


def outcome(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


@pytest.mark.parametrize("body", NOT_ONE_JSON_TEXT.values(), ids=NOT_ONE_JSON_TEXT)
async def test_a_body_that_is_not_one_json_text_in_utf_8_is_a_400(
    client: httpx2.AsyncClient, key: Key, body: bytes
) -> None:
    answer = await order(client, key, body)
    assert outcome(answer) == (400, "invalid_request")
    assert answer.json()["detail"] == "The body is not one JSON text in UTF-8"


@pytest.mark.parametrize("number", NUMBERS_OUT_OF_RANGE.values(), ids=NUMBERS_OUT_OF_RANGE)
@pytest.mark.parametrize("place", [b"%b", b'{"prompt": %b}', b'{"unknown": [{"deep": %b}]}'])
async def test_a_number_that_no_double_can_hold_is_a_400(
    client: httpx2.AsyncClient, key: Key, place: bytes, number: bytes
) -> None:
    answer = await order(client, key, place % number)
    assert outcome(answer) == (400, "invalid_request")
    assert "number" in answer.json()["detail"]


@pytest.mark.parametrize("body", DUPLICATE_KEYS.values(), ids=DUPLICATE_KEYS)
async def test_the_same_key_twice_in_one_object_is_a_400(client: httpx2.AsyncClient, key: Key, body: bytes) -> None:
    answer = await order(client, key, body)
    assert outcome(answer) == (400, "invalid_request")
    assert "same key twice" in answer.json()["detail"]


@pytest.mark.parametrize("body", NOT_AN_OBJECT.values(), ids=NOT_AN_OBJECT)
async def test_json_that_is_not_an_object_is_a_422_about_the_whole_body(
    client: httpx2.AsyncClient, key: Key, body: bytes
) -> None:
    answer = await order(client, key, body)
    assert outcome(answer) == (422, "validation_error")
    assert answer.json()["errors"] == [{"pointer": "#", "detail": "Must be a JSON object"}]


@pytest.mark.parametrize(("pointer", "body"), WRONG_FIELDS.values(), ids=WRONG_FIELDS)
async def test_a_field_of_the_wrong_type_is_a_422_and_never_converted(
    client: httpx2.AsyncClient, key: Key, pointer: str, body: bytes
) -> None:
    answer = await order(client, key, body)
    assert outcome(answer) == (422, "validation_error")
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize("value", ["1", True, 1.0, 1.5, None, [1]])
def test_only_an_integer_is_accepted_as_an_integer(value: object) -> None:
    class Counted(Body):
        count: int

    with pytest.raises(ValidationError):
        Counted.model_validate({"count": value})
    assert Counted.model_validate({"count": 1}).count == 1


@pytest.mark.parametrize("path", ["/v1/auth/register", "/v1/auth/login", "/v1/keys"])
@pytest.mark.parametrize("text", ["\\u0000", "a\\u0000b", "\\ud800", "a\\udfff"])
async def test_text_that_cannot_be_stored_is_a_422_in_every_field(
    client: httpx2.AsyncClient, account: Account, path: str, text: str
) -> None:
    fields = ["name", "environment"] if path == "/v1/keys" else ["email", "password"]
    body = "{" + ", ".join(f'"{field}": "{text}"' for field in fields) + "}"
    headers = {**account.headers, "Content-Type": "application/json"}
    answer = await client.post(path, content=body, headers=headers)
    assert outcome(answer) == (422, "validation_error")
    assert {error["pointer"] for error in answer.json()["errors"]} == {f"#/{field}" for field in fields}


@pytest.mark.parametrize("media_type", OTHER_MEDIA_TYPES)
async def test_a_body_that_is_not_declared_as_json_is_a_415_that_says_so(
    client: httpx2.AsyncClient, key: Key, media_type: str | None
) -> None:
    answer = await order(client, key, GOOD, media_type=media_type)
    assert outcome(answer) == (415, "unsupported_media_type")
    assert answer.json()["detail"] == "Send the body as Content-Type: application/json"


@pytest.mark.parametrize("charset", OTHER_CHARSETS)
async def test_a_body_that_is_declared_in_another_charset_is_a_415_that_says_so(
    client: httpx2.AsyncClient, key: Key, charset: str
) -> None:
    answer = await order(client, key, GOOD, media_type=f"application/json; charset={charset}")
    assert outcome(answer) == (415, "unsupported_media_type")
    assert answer.json()["detail"] == "Send the body in UTF-8"


@pytest.mark.parametrize("media_type", JSON_MEDIA_TYPES)
async def test_json_in_utf_8_may_be_declared_in_any_spelling(
    client: httpx2.AsyncClient, key: Key, media_type: str
) -> None:
    answer = await order(client, key, GOOD, media_type=media_type)
    assert answer.status_code == 200, answer.text


async def test_text_beyond_ascii_is_returned_unchanged(client: httpx2.AsyncClient, key: Key) -> None:
    prompt = "Käse 猫 🍌 \U0010ffff \u200b e\u0301"
    for body in (json.dumps({"prompt": prompt}), json.dumps({"prompt": prompt}, ensure_ascii=False)):
        assert (await order(client, key, body.encode())).json()["prompt"] == prompt


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "gzip, identity", "", "aws-chunked"])
async def test_an_encoded_body_is_refused_and_not_decoded(client: httpx2.AsyncClient, key: Key, coding: str) -> None:
    bomb = gzip.compress(b'{"prompt": "' + b"a" * 10_000_000 + b'"}')
    assert len(bomb) < BODY_BYTES_MAX
    headers = {**key.headers, "Content-Type": "application/json", "Content-Encoding": coding}
    answer = await client.post("/v1/generate", content=bomb, headers=headers)
    assert outcome(answer) == (415, "unsupported_media_type")


async def test_content_encoding_identity_is_accepted(client: httpx2.AsyncClient, key: Key) -> None:
    headers = {**key.headers, "Content-Type": "application/json", "Content-Encoding": "identity"}
    assert (await client.post("/v1/generate", content=GOOD, headers=headers)).status_code == 200


async def test_a_body_of_64_kib_is_accepted_and_one_byte_more_is_a_413(client: httpx2.AsyncClient, key: Key) -> None:
    assert (await order(client, key, GOOD.ljust(BODY_BYTES_MAX))).status_code == 200
    ten_thousand_unknown_fields = b"{%b}" % b",".join(b'"%x":1' % n for n in range(10_000))
    for too_large in (GOOD.ljust(BODY_BYTES_MAX + 1), b"[" * 100_000, ten_thousand_unknown_fields):
        assert outcome(await order(client, key, too_large)) == (413, "body_too_large")


async def test_a_body_may_have_more_with_images_in_it_and_no_more_text_than_before(
    client: httpx2.AsyncClient, key: Key
) -> None:
    noise = BytesIO()
    Image.effect_noise((400, 400), 100).save(noise, "PNG")
    images = [f"data:image/png;base64,{b64encode(noise.getvalue()).decode()}"]
    assert len(images[0]) > BODY_BYTES_MAX
    assert (await generate(client, key, size="64x64", images=images)).status_code == 200
    answer = await generate(client, key, size="64x64", images=images, prompt="a" * BODY_BYTES_MAX)
    assert (*outcome(answer), answer.json()["detail"]) == (413, "body_too_large", "The body is larger than 64 KiB")


async def test_a_chunked_body_of_64_kib_is_accepted_and_one_byte_more_is_a_413(
    client: httpx2.AsyncClient, key: Key
) -> None:
    headers = [*key.headers.items(), JSON_TYPE, ("Transfer-Encoding", "chunked")]
    pieces = [chunk(GOOD), *[chunk(b" " * 4096)] * 15, chunk(b" " * (4096 - len(GOOD)))]
    request = head("POST", "/v1/generate", headers)
    assert (await send_raw(client, request, *pieces, chunk(b""))).status_code == 200
    assert outcome(await send_raw(client, request, *pieces, chunk(b" "), chunk(b""))) == (413, "body_too_large")


@pytest.mark.parametrize("path", ["/v1/auth/login", "/v1/auth/register", "/v1/keys", "/v1/generate"])
async def test_a_body_that_is_declared_as_too_large_is_a_413_before_any_of_it_is_sent(
    client: httpx2.AsyncClient, path: str
) -> None:
    answer = await send_raw(client, head("POST", path, [JSON_TYPE, ("Content-Length", "1073741824")]))
    assert outcome(answer) == (413, "body_too_large")


@pytest.mark.parametrize("path", ["/v1/auth/login", "/v1/auth/register"])
async def test_a_chunked_body_without_end_is_a_413_as_soon_as_it_exceeds_64_kib(
    client: httpx2.AsyncClient, path: str
) -> None:
    request = head("POST", path, [JSON_TYPE, ("Transfer-Encoding", "chunked")])
    answer = await send_raw(client, request, *[chunk(b" " * 4096)] * 17)
    assert outcome(answer) == (413, "body_too_large")
