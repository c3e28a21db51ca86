"""Images that the store does not delete: they are left for later, and keep no other from being deleted."""

from collections.abc import Awaitable, Collection

from app.storage import StoreUnavailable

_MANY = 10


class DeletionFailures:
    """What one turn of deleting could not delete. Once they `are_many` the store itself may be away: it ends."""

    def __init__(self) -> None:
        self._errors: dict[str, StoreUnavailable] = {}

    @property
    def ids(self) -> Collection[str]:
        """Of the images that are left."""
        return self._errors.keys()

    @property
    def are_many(self) -> bool:
        return len(self._errors) >= _MANY

    async def deletes(self, image_id: str, deleting: Awaitable[None]) -> bool:
        """Whether the image is deleted; notes a StoreUnavailable."""
        try:
            await deleting
        except StoreUnavailable as error:
            self._errors[image_id] = error
            return False
        return True

    def raise_first(self) -> None:
        """Raises StoreUnavailable where something is left."""
        for error in self._errors.values():
            raise error
