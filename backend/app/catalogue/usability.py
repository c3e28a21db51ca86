"""Whether a route can be used, or only the operator can mend it: the key, a permission, the model or the quota."""

from app.core.logs import logger
from app.providers import ProviderUnusable


class Usability:
    """Of one route in one process, by what became of its requests. Both changes are logged, and nothing between."""

    def __init__(self) -> None:
        self.is_usable = True

    def failed(self, route: str, error: ProviderUnusable) -> None:
        """The route refused a request for what only the operator can mend."""
        if self.is_usable:
            logger.error("provider_unusable", route=route, status=error.provider_status, reason=error.reason)
        self.is_usable = False

    def succeeded(self, route: str) -> None:
        """The route has drawn an image."""
        if not self.is_usable:
            logger.warning("provider_usable", route=route)
        self.is_usable = True
