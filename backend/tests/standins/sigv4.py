"""AWS Signature Version 4 as S3 checks it: of headers, of presigned URLs, and of the body.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html
"""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Self
from urllib.parse import quote, unquote

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW_SECONDS = 15 * 60
EXPIRES_SECONDS_MAX = 7 * 24 * 3600
UNSIGNED = "UNSIGNED-PAYLOAD"
_AUTHORIZATION = re.compile(
    ALGORITHM + r"\s+Credential=([^,\s]+),\s*SignedHeaders=([^,\s]+),\s*Signature=([0-9a-f]{64})\s*"
)


class S3Error(Exception):
    """An error of S3."""

    def __init__(self, status: int, code: str, message: str, **details: object) -> None:
        super().__init__(code)
        self.status, self.code, self.message, self.details = status, code, message, details


@dataclass(frozen=True)
class Request:
    """A received request; the path and the query's names and values still encoded."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @classmethod
    def read(cls, head: bytes, body: bytes) -> Self:
        request_line, *lines = head.decode("latin-1").strip().split("\r\n")
        method, target, _ = request_line.split(" ")
        path, _, query = target.partition("?")
        pairs = (part.partition("=") for part in query.split("&") if part)
        headers: dict[str, str] = {}
        for name, _, value in (line.partition(":") for line in lines):
            headers[name.lower()] = ",".join(filter(None, [headers.get(name.lower()), " ".join(value.split())]))
        return cls(method, path, tuple((name, value) for name, _, value in pairs), headers, body)

    def argument(self, name: str, default: str = "") -> str:
        return next((unquote(value) for key, value in self.query if unquote(key) == name), default)


@dataclass(frozen=True)
class _Claim:
    """The signature of a request, and the values it was made with."""

    credential: str
    signed_headers: tuple[str, ...]
    signature: str
    time: str
    payload: str
    expires: int | None

    @property
    def key_id(self) -> str:
        return self.credential.split("/")[0]

    @property
    def scope(self) -> str:
        return self.credential.partition("/")[2]


def verify(request: Request, secrets: Mapping[str, str], *, region: str, now: float) -> None:
    """Raises the S3Error that S3 sends, unless one of the secrets has signed this request, and at this time."""
    claim = _claim_of_url(request) if request.argument("X-Amz-Signature") else _claim_of_headers(request)
    _check_scope(claim, region)
    if claim.key_id not in secrets:
        sentence = "The AWS Access Key Id you provided does not exist in our records."
        raise S3Error(403, "InvalidAccessKeyId", sentence, AWSAccessKeyId=claim.key_id)
    _check_time(claim, now)
    _check_signed_headers(request, claim)
    to_sign = "\n".join([ALGORITHM, claim.time, claim.scope, _hexdigest(_canonical(request, claim).encode())])
    expected = _signature(secrets[claim.key_id], claim.scope, to_sign)
    if not hmac.compare_digest(expected, claim.signature):
        sentence = "The request signature we calculated does not match the signature you provided."
        about = {"AWSAccessKeyId": claim.key_id, "StringToSign": to_sign, "SignatureProvided": claim.signature}
        raise S3Error(403, "SignatureDoesNotMatch", sentence, **about)
    _check_payload(request.body, claim.payload)


def _claim_of_headers(request: Request) -> _Claim:
    if "authorization" not in request.headers:
        raise S3Error(403, "AccessDenied", "Access Denied")
    found = _AUTHORIZATION.fullmatch(request.headers["authorization"])
    if not found:
        raise S3Error(400, "AuthorizationHeaderMalformed", "The authorization header is malformed.")
    payload = request.headers.get("x-amz-content-sha256")
    if not payload:
        raise S3Error(400, "InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    credential, signed, signature = found.groups()
    time = request.headers.get("x-amz-date", "")
    return _Claim(credential, tuple(signed.split(";")), signature, time, payload, None)


def _claim_of_url(request: Request) -> _Claim:
    if "authorization" in request.headers:
        raise S3Error(400, "InvalidArgument", "Only one auth mechanism allowed")
    expires = request.argument("X-Amz-Expires")
    lifetime = int(expires) if re.fullmatch("[0-9]{1,9}", expires) else 0
    if request.argument("X-Amz-Algorithm") != ALGORITHM or not 0 < lifetime <= EXPIRES_SECONDS_MAX:
        raise S3Error(400, "AuthorizationQueryParametersError", "X-Amz-Expires must be less than a week (in seconds)")
    return _Claim(
        credential=request.argument("X-Amz-Credential"),
        signed_headers=tuple(request.argument("X-Amz-SignedHeaders").split(";")),
        signature=request.argument("X-Amz-Signature"),
        time=request.argument("X-Amz-Date"),
        payload=request.headers.get("x-amz-content-sha256", UNSIGNED),
        expires=lifetime,
    )


def _check_scope(claim: _Claim, region: str) -> None:
    kind = "AuthorizationHeaderMalformed" if claim.expires is None else "AuthorizationQueryParametersError"
    parts = claim.scope.split("/")
    if len(parts) != len(("day", "region", "service", "ending")) or parts[2:] != ["s3", "aws4_request"]:
        raise S3Error(400, kind, "The credential is malformed.")
    if parts[0] != claim.time[:8]:
        raise S3Error(400, "AuthorizationHeaderMalformed", "The credential's date is not the request's.")
    if parts[1] != region:
        sentence = f"The authorization is malformed; the region is wrong; expecting '{region}'"
        raise S3Error(400, kind, sentence, Region=region)


def _check_time(claim: _Claim, now: float) -> None:
    try:
        signed_at = datetime.strptime(claim.time, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        sentence = "AWS authentication requires a valid Date or x-amz-date header"
        raise S3Error(403, "AccessDenied", sentence) from None
    if claim.expires is None:
        if abs(now - signed_at) > SKEW_SECONDS:
            sentence = "The difference between the request time and the current time is too large."
            raise S3Error(403, "RequestTimeTooSkewed", sentence, MaxAllowedSkewMilliseconds=SKEW_SECONDS * 1000)
    elif now > signed_at + claim.expires:
        raise S3Error(403, "AccessDenied", "Request has expired")
    elif now < signed_at - SKEW_SECONDS:
        raise S3Error(403, "AccessDenied", "Request is not yet valid")


def _check_signed_headers(request: Request, claim: _Claim) -> None:
    missing = [name for name in request.headers if name.startswith("x-amz-") and name not in claim.signed_headers]
    if "host" not in claim.signed_headers or missing:
        sentence = "There were headers present in the request which were not signed"
        raise S3Error(403, "AccessDenied", sentence, HeadersNotSigned=", ".join(missing))


def _check_payload(body: bytes, payload: str) -> None:
    if payload == UNSIGNED:
        return
    if payload.startswith("STREAMING-"):
        raise S3Error(501, "NotImplemented", "This server takes no chunked signatures; no client of ours sends them.")
    if payload != _hexdigest(body):
        sentence = "The provided 'x-amz-content-sha256' header does not match what was computed."
        raise S3Error(400, "XAmzContentSHA256Mismatch", sentence, ClientComputedContentSHA256=payload)


def _canonical(request: Request, claim: _Claim) -> str:
    query = sorted((_encoded(name), _encoded(value)) for name, value in request.query if name != "X-Amz-Signature")
    headers = [f"{name}:{request.headers.get(name, '')}\n" for name in claim.signed_headers]
    return "\n".join(
        [
            request.method,
            quote(unquote(request.path), safe="/-_.~"),
            "&".join(f"{name}={value}" for name, value in query),
            "".join(headers),
            ";".join(claim.signed_headers),
            claim.payload,
        ]
    )


def _encoded(text: str) -> str:
    return quote(unquote(text), safe="-_.~")


def _signature(secret: str, scope: str, to_sign: str) -> str:
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), sha256)
    return hmac.digest(key, to_sign.encode(), sha256).hex()


def _hexdigest(content: bytes) -> str:
    return sha256(content).hexdigest()
