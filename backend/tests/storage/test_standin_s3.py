"""The S3 stand-in behaves as S3: AWS's own client works with it, and is refused where S3 refuses it."""

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from tests.standins.s3 import Fault, S3Server, s3_server

# AWS's library has no types: imported like this, it is Any.
Config: Any = importlib.import_module("botocore.config").Config
ClientError: Any = importlib.import_module("botocore.exceptions").ClientError
Boto3 = Callable[..., Any]
BUCKET = "pictures"
PNG = b"\x89PNG" + bytes(range(256)) * 4


@pytest.fixture
def server() -> Iterator[S3Server]:
    with s3_server(BUCKET) as server:
        yield server


@pytest.fixture(scope="module")
def session() -> Any:
    return importlib.import_module("boto3.session").Session()  # reads its description of S3 only once


@pytest.fixture
def boto3(server: S3Server, session: Any) -> Iterator[Boto3]:
    """Makes a client of AWS's own library; by default with the right keys."""
    clients = []

    def client(*, key_id: str | None = None, secret: str | None = None, region: str | None = None) -> Any:
        made = session.client(
            "s3",
            endpoint_url=server.url,
            region_name=region or server.region,
            aws_access_key_id=key_id or server.key_id,
            aws_secret_access_key=secret or server.secret,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, signature_version="s3v4"),
        )
        clients.append(made)
        return made

    yield client
    for made in clients:
        made.close()


def refusal(call: Callable[[], object]) -> tuple[int, str]:
    """Status and code of the error that the call raises."""
    with pytest.raises(ClientError) as caught:
        call()
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def answered(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.text.partition("<Code>")[2].partition("</Code>")[0]


def test_an_object_is_stored_read_with_its_headers_and_deleted(boto3: Boto3) -> None:
    client, key = boto3(), "a folder/é +&=~.png"
    client.put_object(Bucket=BUCKET, Key=key, Body=PNG, ContentType="image/png", CacheControl="private")
    got = client.get_object(Bucket=BUCKET, Key=key)
    assert (got["Body"].read(), got["ContentType"], got["CacheControl"]) == (PNG, "image/png", "private")
    assert client.head_object(Bucket=BUCKET, Key=key)["ContentLength"] == len(PNG)
    client.delete_object(Bucket=BUCKET, Key=key)
    client.delete_object(Bucket=BUCKET, Key=key)
    assert refusal(lambda: client.get_object(Bucket=BUCKET, Key=key)) == (404, "NoSuchKey")
    assert refusal(lambda: client.head_object(Bucket=BUCKET, Key=key)) == (404, "404")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("bytes=0-0", PNG[:1]), ("bytes=5-9", PNG[5:10]), ("bytes=1000-99999", PNG[1000:]), ("bytes=-7", PNG[-7:])],
)
def test_a_range_holds_the_requested_bytes(boto3: Boto3, asked: str, expected: bytes) -> None:
    client = boto3()
    client.put_object(Bucket=BUCKET, Key="a", Body=PNG)
    got = client.get_object(Bucket=BUCKET, Key="a", Range=asked)
    assert (got["Body"].read(), got["ResponseMetadata"]["HTTPStatusCode"]) == (expected, 206)
    assert got["ContentRange"].endswith(f"/{len(PNG)}")


def test_a_range_behind_the_end_is_refused(boto3: Boto3) -> None:
    client = boto3()
    client.put_object(Bucket=BUCKET, Key="a", Body=PNG)
    behind = f"bytes={len(PNG)}-"
    assert refusal(lambda: client.get_object(Bucket=BUCKET, Key="a", Range=behind)) == (416, "InvalidRange")


def test_a_listing_has_every_key_of_the_prefix_once_page_by_page(boto3: Boto3) -> None:
    client, keys = boto3(), [f"in/{number} &é" for number in range(7)]
    for key in [*keys, "out"]:
        client.put_object(Bucket=BUCKET, Key=key, Body=b"")
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=BUCKET, Prefix="in/", PaginationConfig={"PageSize": 3}
    )
    assert [[entry["Key"] for entry in page["Contents"]] for page in pages] == [keys[:3], keys[3:6], keys[6:]]


def test_a_missing_bucket_is_a_404(boto3: Boto3) -> None:
    boto3().head_bucket(Bucket=BUCKET)
    assert refusal(lambda: boto3().head_bucket(Bucket="another")) == (404, "404")
    assert refusal(lambda: boto3().get_object(Bucket="another", Key="a")) == (404, "NoSuchBucket")


def test_a_wrong_secret_and_an_unknown_key_are_refused(boto3: Boto3) -> None:
    def put(**wrong: str) -> tuple[int, str]:
        return refusal(lambda: boto3(**wrong).put_object(Bucket=BUCKET, Key="a", Body=PNG))

    assert put(secret="0" * 64) == (403, "SignatureDoesNotMatch")
    assert put(key_id="AKIAIOSFODNN7EXAMPLE") == (403, "InvalidAccessKeyId")


def test_a_wrong_region_is_refused_with_the_right_one_which_the_client_then_takes(
    boto3: Boto3, server: S3Server
) -> None:
    boto3(region="eu-west-1").put_object(Bucket=BUCKET, Key="a", Body=PNG)
    assert [(seen.status, seen.code) for seen in server.seen] == [(400, "AuthorizationHeaderMalformed"), (200, None)]


@pytest.mark.parametrize("offset", [-901, 901])
def test_a_clock_more_than_fifteen_minutes_wrong_is_refused(boto3: Boto3, server: S3Server, offset: float) -> None:
    server.clock_offset_seconds = offset + (1 if offset > 0 else -1)
    assert refusal(lambda: boto3().put_object(Bucket=BUCKET, Key="a", Body=PNG)) == (403, "RequestTimeTooSkewed")
    server.clock_offset_seconds = offset * 14 / 15
    boto3().put_object(Bucket=BUCKET, Key="a", Body=PNG)


def test_any_change_after_signing_is_refused(boto3: Boto3, server: S3Server) -> None:
    def put(alter: Callable[[Any], None]) -> tuple[int, str]:
        client = boto3()
        client.meta.events.register("before-send.s3.PutObject", lambda request, **_: alter(request))
        return refusal(lambda: client.put_object(Bucket=BUCKET, Key="a", Body=PNG, ContentType="image/png"))

    def body(request: Any) -> None:
        request.body = bytes(reversed(PNG))

    def path(request: Any) -> None:
        request.url = request.url.replace("/a", "/b")

    def query(request: Any) -> None:
        request.url += "?x-id=PutObject"

    def header(request: Any) -> None:
        request.headers["Content-Type"] = "text/html"

    def unsigned_header(request: Any) -> None:
        request.headers["x-amz-acl"] = "public-read"

    def payload(request: Any) -> None:
        request.headers["X-Amz-Content-SHA256"] = "UNSIGNED-PAYLOAD"

    assert put(body) == (400, "XAmzContentSHA256Mismatch")
    assert {put(path), put(query), put(header), put(payload)} == {(403, "SignatureDoesNotMatch")}
    assert put(unsigned_header) == (403, "AccessDenied")
    assert server.buckets[BUCKET] == {}


def test_a_checksum_that_is_not_the_bodys_is_refused(boto3: Boto3) -> None:
    wrong = "AAAAAA=="
    client = boto3()
    assert refusal(lambda: client.put_object(Bucket=BUCKET, Key="a", Body=PNG, ChecksumCRC32=wrong)) == (
        400,
        "BadDigest",
    )


def test_a_presigned_url_is_valid_for_its_object_method_and_time(boto3: Boto3, server: S3Server) -> None:
    client = boto3()
    client.put_object(Bucket=BUCKET, Key="a b", Body=PNG)
    url = client.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "a b"}, ExpiresIn=60)
    with httpx2.Client() as browser:
        assert browser.get(url).content == PNG
        assert answered(browser.get(url.replace("a%20b", "another"))) == (403, "SignatureDoesNotMatch")
        assert answered(browser.get(url.replace("Expires=60", "Expires=600"))) == (403, "SignatureDoesNotMatch")
        assert answered(browser.get(url.replace("Expires=60", "Expires=9999999"))) == (
            400,
            "AuthorizationQueryParametersError",
        )
        assert answered(browser.put(url, content=b"mine")) == (403, "SignatureDoesNotMatch")
        assert answered(browser.get(url[:-1] + ("0" if url[-1] != "0" else "1"))) == (403, "SignatureDoesNotMatch")
        assert answered(browser.get(url.partition("?")[0])) == (403, "AccessDenied")
        server.clock_offset_seconds = 62
        expired = browser.get(url)
        assert answered(expired) == (403, "AccessDenied")
        assert "Request has expired" in expired.text
        server.clock_offset_seconds = -902
        assert "Request is not yet valid" in browser.get(url).text


def test_a_presigned_url_of_another_key_is_refused(boto3: Boto3) -> None:
    def get(**wrong: str) -> tuple[int, str]:
        url = boto3(**wrong).generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "a"})
        with httpx2.Client() as browser:
            return answered(browser.get(url))

    assert get(secret="0" * 64) == (403, "SignatureDoesNotMatch")
    assert get(key_id="AKIAIOSFODNN7EXAMPLE") == (403, "InvalidAccessKeyId")


def test_an_upload_to_a_presigned_url_must_have_the_signed_media_type(boto3: Boto3, server: S3Server) -> None:
    wanted = {"Bucket": BUCKET, "Key": "a", "ContentType": "image/png"}
    url = boto3().generate_presigned_url("put_object", Params=wanted, ExpiresIn=60)
    with httpx2.Client() as browser:
        refused = browser.put(url, content=PNG, headers={"Content-Type": "text/html"})
        assert answered(refused) == (403, "SignatureDoesNotMatch")
        assert browser.put(url, content=PNG, headers={"Content-Type": "image/png"}).status_code == 200
    assert server.buckets[BUCKET]["a"].content == PNG


def test_faults_occur_as_often_as_requested_and_are_recorded(boto3: Boto3, server: S3Server) -> None:
    client = boto3()
    server.fail("slow_down", method="PUT")
    server.fail("internal_error")
    assert refusal(lambda: client.get_object(Bucket=BUCKET, Key="a")) == (500, "InternalError")
    assert refusal(lambda: client.put_object(Bucket=BUCKET, Key="a", Body=PNG)) == (503, "SlowDown")
    client.put_object(Bucket=BUCKET, Key="a", Body=PNG)
    assert [(seen.method, seen.status, seen.code) for seen in server.seen] == [
        ("GET", 500, "InternalError"),
        ("PUT", 503, "SlowDown"),
        ("PUT", 200, None),
    ]


def test_connections_are_reset_cut_and_left_without_a_response(boto3: Boto3, server: S3Server) -> None:
    boto3().put_object(Bucket=BUCKET, Key="a", Body=PNG)
    url = boto3().generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "a"})
    with httpx2.Client(timeout=0.3) as browser:
        faults: list[tuple[Fault, type[Exception]]] = [
            ("reset", httpx2.ReadError),
            ("cut", httpx2.TransportError),
            ("hang", httpx2.ReadTimeout),
        ]
        for fault, error in faults:
            server.fail(fault)
            with pytest.raises(error):
                browser.get(url)
    server.fail("slow")
    assert httpx2.get(url).content == PNG
