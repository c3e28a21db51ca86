"""Images fetched from URLs that a client sent: from the Internet and from networks that the operator names alone."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from ssl import SSLContext
from typing import NamedTuple
from urllib.parse import urljoin

import httpx2

from app.core.addresses import is_public
from app.core.bounds import format_bytes
from app.core.egress import Egress
from app.core.fair_queue import FairQueue
from app.core.images import IMAGE_START_BYTES, begins_as_image
from app.core.logs import logger
from app.core.pinning import REDIRECTS, REDIRECTS_MAX, Resolve, look_up, pinned_request
from app.core.pool import BoundedPool
from app.core.settings import Settings

Network = IPv4Network | IPv6Network

_FETCHES_MAX, _WAITING_MAX = 16, 256
_SECONDS = 10
_CONNECT_SECONDS, _ADDRESSES_MAX = 3, 3
_URL_CHARACTERS_MAX, _HTTPS_PORT, _PORT_MAX = 4096, 443, 65_535
_OK = 200
_HEADERS = {"Accept": "image/*", "User-Agent": "NanoBanana"}

_LABEL = "(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
_LAST_LABEL = f"(?![0-9]+(?:[:/?#]|$)|0[xX]){_LABEL}"  # of a number, some resolvers make an IPv4 address
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_URL = re.compile(
    rf"[Hh][Tt][Tt][Pp][Ss]://(?P<host>(?:{_LABEL}\.)*{_LAST_LABEL}|{_OCTET}(?:\.{_OCTET}){{3}}|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?(?:[/?#][!#-;=?-\[\]_a-z~]*)?",
    re.ASCII,
)
"""What every client reads alike: ASCII, one host, and nothing that one corrects and another leaves out."""

_NOT_A_URL = (
    "Must be an https URL of at most 4096 ASCII characters, with a host name or an IP address in its usual form, "
    "without user and password"
)
_NO_ADDRESS = "Its host has no address, or one that images are not fetched from"
_OTHER_PORT = "Must be at port 443"
_FAILED = (
    "Could not be fetched: its host must answer within 10 seconds, with a certificate for its name, status 200 and an "
    "uncompressed image, after 3 redirects at most"
)


class FetchRefused(Exception):
    """Nothing was asked for: the URL, or an address of its host, is not allowed."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class FetchFailed(Exception):
    """No image came. The sentence is the same for whatever kept it from coming: it says nothing of what is at a port of
    a network that the client cannot reach itself.
    """

    def __init__(self, sentence: str = _FAILED) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class _Checked(NamedTuple):
    url: httpx2.URL
    addresses: Sequence[str]


class Fetcher:
    """Fetches images, at most 16 at a time. Connects directly, to an address that it has checked, and sends neither
    credentials nor cookies; the environment's proxies, certificates and passwords are not followed.
    """

    def __init__(
        self,
        ssl_context: SSLContext,
        *,
        networks: Sequence[Network] = (),
        reaches_public: bool = True,
        resolve: Resolve | None = None,
    ) -> None:
        """Allowed are port 443 of public addresses where it `reaches_public`, and every port in `networks`. `resolve`
        None is the system's resolver.
        """
        self._ssl_context = ssl_context
        self._networks = networks
        self._reaches_public = reaches_public
        # Threads of its own: a name whose servers never answer keeps one for as long as the resolver waits.
        self._looking_up = BoundedPool(threads=_FETCHES_MAX, queue_max=_FETCHES_MAX, name="look-up-hosts", niceness=0)
        self._resolve = resolve or self._look_up
        self._turns = FairQueue(slots=_FETCHES_MAX, waiting_max=_WAITING_MAX)

    async def fetch(self, url: str, *, bytes_max: int, deadline: float, group: str = "") -> bytes:
        """The image at the URL, of at most `bytes_max` bytes, by its first bytes; within ten seconds of its turn among
        those of `group`, such as the account, and before `deadline`, a time of the event loop.

        Raises FetchRefused and FetchFailed, whose sentences hold neither the URL nor an address nor anything of the
        response; and Unavailable where too many wait.
        """
        try:
            async with asyncio.timeout_at(deadline), self._turns.turn(group), asyncio.timeout(_SECONDS):
                return await self._follow(url, bytes_max)
        except FetchFailed:
            logger.info("fetch_failed", reason="response")
            raise
        except (httpx2.TransportError, OSError) as error:  # a TLS alert and a timeout are an OSError of their own
            logger.info("fetch_failed", reason=type(error).__name__)
        raise FetchFailed

    async def close(self) -> None:
        """Waits for look-ups that run."""
        await asyncio.to_thread(self._looking_up.close)

    async def _follow(self, url: str, bytes_max: int) -> bytes:
        """Every URL on the way is checked like the first."""
        checked = await self._check(url)
        for _ in range(1 + REDIRECTS_MAX):
            async with self._response(checked) as response:
                if response.status_code not in REDIRECTS:
                    return await _read(response, bytes_max)
                location = response.headers.get("location", "")
            try:
                checked = await self._check(urljoin(str(checked.url), location))
            except (FetchRefused, ValueError):
                break
        raise FetchFailed

    async def _check(self, text: str) -> _Checked:
        """The URL, with the addresses of its one look-up. Raises FetchRefused."""
        url = _parsed(text)
        host, port = url.raw_host.decode("ascii"), url.port or _HTTPS_PORT
        addresses = [host] if _address(host) else await self._resolve(host, port)
        if not addresses or not all(map(self._is_allowed, addresses)):
            raise FetchRefused(_NO_ADDRESS)
        if port != _HTTPS_PORT and not all(map(self._is_named, addresses)):
            raise FetchRefused(_OTHER_PORT)
        return _Checked(url, addresses)

    def _is_allowed(self, text: str) -> bool:
        return self._is_named(text) or (self._reaches_public and is_public(text))

    def _is_named(self, text: str) -> bool:
        """Whether the operator has named a network of the address."""
        address = _address(text)
        return address is not None and any(address in network for network in self._networks)

    async def _look_up(self, host: str, port: int) -> Sequence[str]:
        return await self._looking_up.run(partial(look_up, host, port))

    @asynccontextmanager
    async def _response(self, checked: _Checked) -> AsyncIterator[httpx2.Response]:
        """The response of the first of the addresses that takes a connection."""
        failure: httpx2.TransportError | None = None
        async with httpx2.AsyncHTTPTransport(verify=self._ssl_context, trust_env=False) as transport:
            for address in checked.addresses[:_ADDRESSES_MAX]:
                request = pinned_request(checked.url, address)
                request.headers.update(_HEADERS)
                request.extensions["timeout"] = {"connect": _CONNECT_SECONDS}
                try:
                    response = await transport.handle_async_request(request)
                except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                    failure = error
                    continue
                try:
                    yield response
                finally:
                    await response.aclose()
                return
        raise failure or FetchFailed


async def _read(response: httpx2.Response, bytes_max: int) -> bytes:
    """The body, read no further than it is an image of at most `bytes_max` bytes."""
    headers = response.headers
    if response.status_code != _OK or headers.get("content-encoding", "identity").lower() != "identity":
        raise FetchFailed
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) >= IMAGE_START_BYTES and not begins_as_image(content):
            raise FetchFailed
        if len(content) > bytes_max:
            raise FetchFailed(f"The image at the URL is larger than {format_bytes(bytes_max)}")
    if not begins_as_image(content):
        raise FetchFailed
    return bytes(content)


def _parsed(text: str) -> httpx2.URL:
    """Raises FetchRefused."""
    found = _URL.fullmatch(text) if len(text) <= _URL_CHARACTERS_MAX else None
    if found is not None and int(found["port"] or _HTTPS_PORT) <= _PORT_MAX:
        with suppress(httpx2.InvalidURL):
            return httpx2.URL(text)
    raise FetchRefused(_NOT_A_URL)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The IP address that the text is, or that a mapped one means."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


@asynccontextmanager
async def open_fetcher(settings: Settings) -> AsyncIterator[Fetcher | None]:
    """The fetcher of these settings; None where they let no image be fetched. Raises ConfigurationError."""
    reaches_public = settings.egress_proxy is None
    if not settings.fetch_images or not (reaches_public or settings.allow_networks):
        yield None
        return
    context = Egress.of(settings).ssl_context()
    fetcher = Fetcher(context, networks=settings.allow_networks, reaches_public=reaches_public)
    try:
        yield fetcher
    finally:
        await fetcher.close()
