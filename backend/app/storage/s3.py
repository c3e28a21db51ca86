"""Keeps images in a bucket of any service that speaks the S3 protocol: Cloudflare R2, MinIO, AWS."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore.exceptions import BaseError

from app.core.images import CACHE_CONTROL, MEDIA_TYPES
from app.core.logs import logger
from app.core.settings import ConfigurationError
from app.storage import (
    CHUNK_BYTES,
    PAGE,
    PROBE_BYTES,
    PresignedUrl,
    Stored,
    StoredFile,
    StoreUnavailable,
    checked,
    is_image_name,
    no_chunks,
)
from app.storage.s3_settings import RETRIES_MAX, S3Settings, open_bucket

if TYPE_CHECKING:  # these exist for type checkers alone
    from obstore import GetOptions, GetResult, ListStream, ObjectMeta


_RELEASE_SECONDS = 0.2
_ASKED_FOR_ONE_BY_ONE = 100
_NO_ANSWER, _TIMEOUT = "no_answer", "timeout"
_CONNECTION_FAILURES = {
    "InvalidCertificate(": "certificate",
    "ProxyAuthRequired": "proxy",
    "TunnelUnsuccessful": "proxy",
    "ConnectFailed(": "proxy",
    "dns error": "dns",
    "ConnectionRefused": "refused",
}
"""The words of the library's errors, and our reasons."""
_NOT_REACHED = {_NO_ANSWER, *_CONNECTION_FAILURES.values()}
_ABSENT, _PAST_THE_END = "NoSuchKey", "InvalidRange"

# What the operator can correct. Any other error is the store's own.
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
    "certificate": "S3_ENDPOINT shows a certificate that is not trusted: EGRESS_CA_FILE can name the authority",
    "dns": "S3_ENDPOINT names a host that has no address",
    "refused": "S3_ENDPOINT refuses the connection",
    "proxy": "S3_ENDPOINT cannot be reached through EGRESS_PROXY",
}
_KNOWN_CODES = {*_SENTENCES, _ABSENT, _PAST_THE_END, "SlowDown", "InternalError", "ServiceUnavailable"}

Result = TypeVar("Result")


class S3Store:
    """A Store. No call and no chunk takes longer than the deadline, retries and the wait for a connection included;
    but for puts, which wait longer: what they keep may have been paid.

    Raises ConfigurationError, with one sentence, for settings that cannot be used.
    """

    def __init__(
        self,
        settings: S3Settings,
        *,
        redirect_seconds: int | None = None,
        deadline_seconds: float = 10,
        connections_max: int = 64,
    ) -> None:
        """With `redirect_seconds` (at most a week) there are presigned URLs, which are valid for so long.
        Reading and writing have `connections_max` each: however many read, what was paid is written. The deadline of a
        put begins when it has a connection, for which it waits as long as its caller does.
        """
        self._bucket = open_bucket(settings, deadline_seconds=deadline_seconds)
        self._check_name = f"check_{secrets.token_hex(8)}"  # one: what a check could not delete the next one does
        self._redirect_seconds = redirect_seconds
        self._deadline_seconds = deadline_seconds
        self._reads, self._writes = asyncio.Semaphore(connections_max), asyncio.Semaphore(connections_max)

    async def close(self) -> None:
        """Gives the library's threads time to drop their Python objects: at interpreter exit, that aborts it."""
        await asyncio.sleep(_RELEASE_SECONDS)

    async def free_bytes(self) -> None:
        """Not known of a bucket."""

    async def check(self, *, size: int = PROBE_BYTES) -> None:
        """Writes, reads and deletes an object of so many bytes.

        Raises, with one sentence, ConfigurationError for a wrong setting and StoreUnavailable for a failing store.
        """
        try:
            await self._limited(self._writes, partial(self._try_out, self._check_name, size))
        except _Failed as failure:
            sentence = _SENTENCES.get(failure.reason, f"The S3 store fails: {failure.reason}")
            is_setting = failure.reason in _SENTENCES and failure.reason not in {_TIMEOUT, *_NOT_REACHED}
            raise ConfigurationError(sentence) if is_setting else StoreUnavailable(sentence) from None

    async def put(self, name: str, content: bytes) -> None:
        attributes = {"Content-Type": MEDIA_TYPES[checked(name).rpartition(".")[2]], "Cache-Control": CACHE_CONTROL}
        try:
            async with self._writes:
                await self._in_time(
                    lambda: self._bucket.put_async(name, content, attributes=attributes, use_multipart=False)
                )
        except _Failed as failure:
            raise _unavailable("put", failure) from None

    async def get(self, name: str, *, start: int = 0, end: int | None = None) -> Stored | None:
        options = _options(start, end)
        checked(name)
        try:
            result = await self._limited(self._reads, partial(self._got, name, options))
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
            await self._limited(self._writes, partial(self._delete, name))
        except _Failed as failure:
            if failure.reason != _ABSENT:
                raise _unavailable("delete", failure) from None

    async def presigned_url(self, name: str) -> PresignedUrl | None:
        """Signed by this process, for GET only: the store is not called."""
        checked(name)
        if self._redirect_seconds is None:
            return None
        lifetime = timedelta(seconds=self._redirect_seconds)
        return PresignedUrl(await obstore.sign_async(self._bucket, "GET", name, lifetime), self._redirect_seconds)

    async def pages(self, *, first: str = "", end: str = "~") -> AsyncIterator[Sequence[StoredFile]]:
        """In the order of their names, as S3 lists them."""
        listing = self._bucket.list(offset=first[:-1] or None, chunk_size=PAGE)  # all that is greater than the offset
        while True:
            try:
                found = await self._in_time(partial(_next_page, listing))
            except _Failed as failure:
                raise _unavailable("list", failure) from None
            yield [
                StoredFile(each["path"], each["size"], each["last_modified"].timestamp())
                for each in found
                if first <= each["path"] < end and is_image_name(each["path"])
            ]
            if not found or found[-1]["path"] >= end:
                return

    async def sizes(self, names: Sequence[str]) -> Mapping[str, int]:
        if len(names) <= _ASKED_FOR_ONE_BY_ONE:  # there may be millions of others between the first and the last
            stored = await asyncio.gather(*(self.get(name, end=0) for name in names))
            return {name: each.size for name, each in zip(names, stored, strict=True) if each is not None}
        wanted, found = set(names), dict[str, int]()
        async for page in self.pages(first=names[0], end=f"{names[-1]}~"):
            found.update((each.name, each.size) for each in page if each.name in wanted)
        return found

    async def _delete(self, name: str) -> None:
        """The library repeats a DELETE after an error, but not after a lost connection. Repeating it is harmless."""
        for _ in range(RETRIES_MAX):
            try:
                return await self._bucket.delete_async(name)
            except BaseError as error:
                if _reason(str(error)) not in _NOT_REACHED:
                    raise
        return await self._bucket.delete_async(name)

    async def _got(self, name: str, options: "GetOptions") -> "GetResult | int":
        """The requested part, or the size of an image that ends before it."""
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

    async def _try_out(self, name: str, size: int) -> None:
        content = secrets.token_bytes(size)
        try:
            await self._bucket.put_async(name, content, use_multipart=False)
            if bytes(await (await self._bucket.get_async(name)).bytes_async()) != content:
                raise _Failed("what was written is not what is read")
        finally:
            await self._bucket.delete_async(name)
        try:
            await self._bucket.get_async(name)
        except FileNotFoundError:  # without permission to list, AWS answers AccessDenied instead
            return
        raise _Failed("what was deleted is still there")

    async def _limited(self, connections: asyncio.Semaphore, call: Callable[[], Awaitable[Result]]) -> Result:
        async def in_turn() -> Result:
            async with connections:
                return await call()

        return await self._in_time(in_turn)

    async def _in_time(self, call: Callable[[], Awaitable[Result]]) -> Result:
        """The call's result. Raises _Failed instead of the library's errors, which quote URLs, keys and the store."""
        try:
            async with asyncio.timeout(self._deadline_seconds):
                return await call()
        except TimeoutError:
            reason = _TIMEOUT
        except (BaseError, OSError, ValueError) as error:
            reason = _reason(str(error))
        raise _Failed(reason)  # out here, so that the library's error is not its cause


async def _next_page(listing: "ListStream[Sequence[ObjectMeta]]") -> "Sequence[ObjectMeta]":
    """Nothing at the end of the listing. (The library's stream does not take the default of `anext`.)"""
    async for page in listing:
        return page
    return ()


class _Failed(Exception):
    """A failed call. The reason is from a fixed list, or a status."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _unavailable(operation: str, failure: _Failed) -> StoreUnavailable:
    logger.warning("store_unavailable", store="s3", operation=operation, reason=failure.reason)
    return StoreUnavailable()


def _reason(text: str) -> str:
    """One of the known S3 codes, a status, or a fixed word: never text that the store chose."""
    code, status = re.search(r"<Code>(\w+)</Code>", text), re.search(r"status code: (\d{3})", text)
    if code and code[1] in _KNOWN_CODES:
        return code[1]
    if status:
        return status[1]
    failures = [reason for words, reason in _CONNECTION_FAILURES.items() if words in text]
    return _TIMEOUT if "TimedOut" in text else failures[0] if failures else _NO_ANSWER


def _options(start: int, end: int | None) -> "GetOptions":
    if end is not None:
        return {"range": (start, max(end, start + 1))}  # S3 has no empty range
    return {"range": {"offset": start}} if start else {}
