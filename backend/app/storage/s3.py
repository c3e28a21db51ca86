"""Keeps pictures in a bucket of whatever speaks the S3 protocol: Cloudflare R2, MinIO, AWS."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store as Bucket

from app.core.logs import logger
from app.core.settings import ConfigurationError
from app.storage import CHUNK_BYTES, Stored, StoreUnavailable, checked, no_chunks

if TYPE_CHECKING:  # these are there for type checkers alone
    from obstore import GetOptions, GetResult
    from obstore.store import S3Credential

CACHE_CONTROL = "private, max-age=31536000, immutable"
MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}

_DOWNLOAD_SECONDS_MAX = 3600  # of a whole picture, by a caller who reads slowly; each chunk has the deadline
_IDLE_SECONDS_MAX = 20  # many a router forgets a silent connection soon after
_RETRIES_MAX = 3
_NO_ANSWER, _TIMEOUT = "no_answer", "timeout"
_ABSENT, _PAST_THE_END = "NoSuchKey", "InvalidRange"

# What the operator can put right. Every other answer is the store's own trouble.
_WRONG_KEY = "S3_ACCESS_KEY_ID is not known to the store"
_WRONG_BUCKET = "S3_BUCKET names no bucket of this account"
_WRONG_REGION = "S3_REGION is not the region of the bucket"
_SENTENCES = {
    "SignatureDoesNotMatch": "S3_SECRET_ACCESS_KEY does not belong to S3_ACCESS_KEY_ID: the signature is refused",
    "InvalidAccessKeyId": _WRONG_KEY,
    "Unauthorized": _WRONG_KEY,
    "InvalidArgument": _WRONG_KEY,  # R2's answer to a key that is too long or too short
    "NoSuchBucket": _WRONG_BUCKET,
    "InvalidBucketName": _WRONG_BUCKET,
    "AccessDenied": "S3_ACCESS_KEY_ID may not write, read, list and delete in S3_BUCKET",
    "RequestTimeTooSkewed": "The clock of this machine is more than 15 minutes wrong",
    "AuthorizationHeaderMalformed": _WRONG_REGION,
    "InvalidRegionName": _WRONG_REGION,
    "PermanentRedirect": _WRONG_REGION,
    _TIMEOUT: "S3_ENDPOINT does not answer in time",
    _NO_ANSWER: "S3_ENDPOINT cannot be reached",
}
_KNOWN_CODES = {*_SENTENCES, _ABSENT, _PAST_THE_END, "SlowDown", "InternalError", "ServiceUnavailable"}

Result = TypeVar("Result")


@dataclass(frozen=True)
class S3Account:
    """Whose bucket, and where. Without an endpoint it is AWS's in the region. Plain HTTP is for this machine alone."""

    bucket: str
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    endpoint: str | None = None
    region: str = "auto"
    prefix: str = ""
    allow_http: bool = False


class S3Store:
    """A Store. No call takes longer than the deadline, tries and waiting for a connection included; nor does a chunk.

    Raises ConfigurationError, with one sentence, for an account that cannot be used.
    """

    def __init__(self, account: S3Account, *, deadline_seconds: float = 10, connections_max: int = 64) -> None:
        self._bucket = _bucket(account, deadline_seconds)
        self._deadline_seconds = deadline_seconds
        self._places = asyncio.Semaphore(connections_max)

    async def check(self) -> None:
        """Writes, reads and deletes an object.

        Raises, with one sentence: ConfigurationError where a setting is wrong, StoreUnavailable where the store is.
        """
        try:
            await self._answered(partial(self._try_out, f"check_{secrets.token_hex(8)}"))
        except _Failed as failure:
            sentence = _SENTENCES.get(failure.reason, f"The S3 store fails: {failure.reason}")
            is_setting = failure.reason in _SENTENCES and failure.reason not in {_TIMEOUT, _NO_ANSWER}
            raise ConfigurationError(sentence) if is_setting else StoreUnavailable(sentence) from None

    async def put(self, name: str, content: bytes) -> None:
        attributes = {"Content-Type": MEDIA_TYPES[checked(name).rpartition(".")[2]], "Cache-Control": CACHE_CONTROL}
        try:
            await self._answered(
                lambda: self._bucket.put_async(name, content, attributes=attributes, use_multipart=False)
            )
        except _Failed as failure:
            raise _unavailable("put", failure) from None

    async def get(self, name: str, *, start: int = 0, end: int | None = None) -> Stored | None:
        options = _options(start, end)
        checked(name)
        try:
            result = await self._answered(partial(self._got, name, options))
        except _Failed as failure:
            if failure.reason == _ABSENT:
                return None
            raise _unavailable("get", failure) from None
        if isinstance(result, int):
            return Stored(result, result, result, no_chunks())
        size, (first, last) = result.meta["size"], result.range
        if end is not None and end <= start:
            return Stored(size, start, start, no_chunks())
        return Stored(size, first, last, self._chunks(result))

    async def delete(self, name: str) -> None:
        checked(name)
        try:
            await self._answered(partial(self._delete, name))
        except _Failed as failure:
            if failure.reason != _ABSENT:
                raise _unavailable("delete", failure) from None

    async def signed_url(self, name: str, *, seconds: int) -> str:
        """An address at which anybody can GET the picture for so long (at most a week). Asks nobody."""
        return await obstore.sign_async(self._bucket, "GET", checked(name), timedelta(seconds=seconds))

    async def _delete(self, name: str) -> None:
        """The library sends a DELETE again for an error, but not for a lost connection. It may be: it only forgets."""
        for _ in range(_RETRIES_MAX):
            try:
                return await self._bucket.delete_async(name)
            except BaseError as error:
                if _reason(str(error)) != _NO_ANSWER:
                    raise
        return await self._bucket.delete_async(name)

    async def _got(self, name: str, options: "GetOptions") -> "GetResult | int":
        """What was asked for, or the size of a picture that has nothing there."""
        try:
            return await self._bucket.get_async(name, options=options)
        except BaseError as error:
            if _reason(str(error)) != _PAST_THE_END:
                raise
        return (await self._bucket.head_async(name))["size"]

    async def _chunks(self, result: "GetResult") -> AsyncIterator[bytes]:
        left, stream = result.range[1] - result.range[0], result.stream(CHUNK_BYTES)
        while left:
            try:
                chunk = await self._in_time(lambda: anext(stream, b""))
            except _Failed as failure:
                raise _unavailable("get", failure) from None
            if not chunk:
                raise _unavailable("get", _Failed("cut"))
            left -= len(chunk)
            yield chunk

    async def _try_out(self, name: str) -> None:
        await self._bucket.put_async(name, name.encode(), use_multipart=False)
        try:
            if bytes(await (await self._bucket.get_async(name)).bytes_async()) != name.encode():
                raise _Failed("what was written is not what is read")
        finally:
            await self._bucket.delete_async(name)
        try:
            await self._bucket.get_async(name)
        except FileNotFoundError:  # AWS says AccessDenied to who may not list: then every lost picture is a failure
            return
        raise _Failed("what was deleted is still there")

    async def _answered(self, call: Callable[[], Awaitable[Result]]) -> Result:
        async def in_its_turn() -> Result:
            async with self._places:
                return await call()

        return await self._in_time(in_its_turn)

    async def _in_time(self, call: Callable[[], Awaitable[Result]]) -> Result:
        """What the call returns; raises _Failed. The library's errors quote addresses, keys and the store's words."""
        try:
            async with asyncio.timeout(self._deadline_seconds):
                return await call()
        except TimeoutError:
            reason = _TIMEOUT
        except (BaseError, OSError, ValueError) as error:
            reason = _reason(str(error))
        raise _Failed(reason)  # out here the library's error is not chained to it


class _Failed(Exception):
    """A call that failed, for a reason in words of our own."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _unavailable(operation: str, failure: _Failed) -> StoreUnavailable:
    logger.warning("store_unavailable", store="s3", operation=operation, reason=failure.reason)
    return StoreUnavailable()


def _reason(text: str) -> str:
    """One of S3's codes, a status, or that there was no answer: never a word that the store chose."""
    code, status = re.search(r"<Code>(\w+)</Code>", text), re.search(r"status code: (\d{3})", text)
    if code and code[1] in _KNOWN_CODES:
        return code[1]
    if status:
        return status[1]
    return _TIMEOUT if "TimedOut" in text else _NO_ANSWER


def _options(start: int, end: int | None) -> "GetOptions":
    if end is not None:
        return {"range": (start, max(end, start + 1))}  # S3 knows no empty range
    return {"range": {"offset": start}} if start else {}


def _check_words(account: S3Account) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", account.bucket):
        raise ConfigurationError("S3_BUCKET must be a name of 3 to 63 lower-case letters, digits, dots and hyphens")
    if not re.fullmatch(r"([A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*)?", account.prefix):
        raise ConfigurationError("S3_PREFIX must look like pictures/live, without a slash at its ends")
    if not re.fullmatch(r"[a-z0-9-]+", account.region):
        raise ConfigurationError("S3_REGION must look like auto or eu-west-1")
    if not re.fullmatch(r"[\x21-\x7e]+", account.access_key_id):
        raise ConfigurationError("S3_ACCESS_KEY_ID must be there, and have no white space in it")
    if not re.fullmatch(r"[\x21-\x7e]+", account.secret_access_key):
        raise ConfigurationError("S3_SECRET_ACCESS_KEY must be there, and have no white space in it")


def _bucket(account: S3Account, deadline_seconds: float) -> Bucket:
    _check_words(account)
    endpoint = _endpoint(account)
    return Bucket(
        account.bucket,
        prefix=account.prefix or None,
        # All are said, both names of the endpoint too: what is not said comes from AWS_ variables, if there are any.
        config={
            "endpoint": endpoint,
            "aws_endpoint_url_s3": endpoint,
            "region": account.region,
            "virtual_hosted_style_request": False,
            "disable_bulk_delete": True,
            "skip_signature": False,
            "unsigned_payload": False,
            "s3_express": False,
            "request_payer": False,
        },
        credential_provider=partial(_credential, account),
        client_options={
            "allow_http": endpoint.startswith("http:"),
            "connect_timeout": timedelta(seconds=deadline_seconds / 3),
            "read_timeout": timedelta(seconds=deadline_seconds * 0.6),
            "timeout": timedelta(seconds=_DOWNLOAD_SECONDS_MAX),
            "pool_idle_timeout": timedelta(seconds=_IDLE_SECONDS_MAX),
        },
        retry_config={
            "max_retries": _RETRIES_MAX,
            "retry_timeout": timedelta(seconds=deadline_seconds * 0.8),
            "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=1), "base": 2},
        },
    )


def _credential(account: S3Account) -> "S3Credential":
    return {
        "access_key_id": account.access_key_id,
        "secret_access_key": account.secret_access_key,
        "token": None,
        "expires_at": None,
    }


def _endpoint(account: S3Account) -> str:
    if account.endpoint is None:
        if account.region == "auto":
            raise ConfigurationError("S3_REGION must be the one of the bucket, or S3_ENDPOINT must be set")
        return f"https://s3.{account.region}.amazonaws.com"
    parts = urlsplit(account.endpoint)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ConfigurationError("S3_ENDPOINT must look like https://s3.example.com")
    if parts.path not in {"", "/"}:
        raise ConfigurationError("S3_ENDPOINT must end with the host: the name of the bucket belongs into S3_BUCKET")
    if parts.scheme == "http" and not (account.allow_http or _is_this_machine(parts.hostname)):
        raise ConfigurationError("S3_ENDPOINT must begin with https://, unless it is on this machine")
    return account.endpoint.rstrip("/")


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
