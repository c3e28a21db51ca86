"""What a browser reports about a page: violations of its policy, errors of scripts, failed and foreign requests."""

from urllib.parse import urlsplit

from playwright.async_api import BrowserContext, ConsoleMessage, Request, Response

_ERROR = 400
_NO_ERRORS = {"document", "fetch", "xhr"}  # the test or the page's script checks their status
_STATUS_MESSAGE = "Failed to load resource: the server responded with a status"

# Runs before the page's own scripts, in every document and frame.
_LISTEN = """addEventListener("securitypolicyviolation", event =>
    reportBrowserError(`policy: ${event.effectiveDirective} forbids ${event.blockedURI || "inline"}`))"""


class BrowserErrors:
    """Collects the errors of all pages of some browser contexts, in the order in which they are reported."""

    def __init__(self, *, origin: str) -> None:
        self._origin = urlsplit(origin).netloc
        self._found: list[str] = []

    def take(self) -> list[str]:
        """Returns the errors that were collected, and forgets them."""
        found, self._found = self._found, []
        return found

    async def listen(self, context: BrowserContext) -> None:
        """Collects from this context. To be called before it opens its first page."""
        await context.expose_binding("reportBrowserError", lambda _, sentence: self._found.append(sentence))
        await context.add_init_script(_LISTEN)
        context.on("console", self._console)
        context.on("weberror", lambda error: self._found.append(f"script: {error.error}"))
        context.on("request", self._request)
        context.on("response", self._response)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith(_STATUS_MESSAGE):
            self._found.append(f"console: {message.text}")

    def _request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in {"data", "blob"} and parts.netloc != self._origin:
            self._found.append(f"foreign request: {request.url}")

    def _response(self, response: Response) -> None:
        if response.status >= _ERROR and response.request.resource_type not in _NO_ERRORS:
            self._found.append(f"status {response.status}: {response.url}")
