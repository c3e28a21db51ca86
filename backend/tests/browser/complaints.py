"""What a browser holds against a page: what its policy forbids, what breaks in it, and what it fetches elsewhere."""

from urllib.parse import urlsplit

from playwright.async_api import BrowserContext, ConsoleMessage, Request, Response

_ERROR = 400
_NO_ERRORS = {"document", "fetch", "xhr"}  # their status is an answer, for the test or the page's script to judge
_OF_A_STATUS = "Failed to load resource: the server responded with a status"

# Listens from before the first line of the page's own scripts, in every document and frame.
_LISTEN = """addEventListener("securitypolicyviolation", event =>
    complain(`policy: ${event.effectiveDirective} forbids ${event.blockedURI || "inline"}`))"""


class Complaints:
    """All complaints of the pages of its contexts, in the order in which they came."""

    def __init__(self, *, origin: str) -> None:
        self._origin = urlsplit(origin).netloc
        self._found: list[str] = []

    def take(self) -> list[str]:
        """What was found, and is forgotten by it."""
        found, self._found = self._found, []
        return found

    async def listen(self, context: BrowserContext) -> None:
        """Before the context opens its first page."""
        await context.expose_binding("complain", lambda _, sentence: self._found.append(sentence))
        await context.add_init_script(_LISTEN)
        context.on("console", self._console)
        context.on("weberror", lambda error: self._found.append(f"script: {error.error}"))
        context.on("request", self._request)
        context.on("response", self._response)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith(_OF_A_STATUS):
            self._found.append(f"console: {message.text}")

    def _request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in {"data", "blob"} and parts.netloc != self._origin:
            self._found.append(f"elsewhere: {request.url}")

    def _response(self, response: Response) -> None:
        if response.status >= _ERROR and response.request.resource_type not in _NO_ERRORS:
            self._found.append(f"status {response.status}: {response.url}")
