"""The stores that the settings name."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from app.core.egress import Egress
from app.core.image_settings import StoreName
from app.core.settings import ConfigurationError, Settings
from app.storage.filesystem import FilesystemStore
from app.storage.health import CheckedStore, MonitoredStore
from app.storage.pair import StorePair
from app.storage.s3 import S3Store
from app.storage.s3_settings import S3Settings, endpoint

FOLDER = "pictures"
"""The folder of images in DATA_DIR."""

_READS_MAX = 1024
_NAMING = ("image_store", "second_image_store")
_NEEDED = ("s3_bucket", "s3_access_key_id", "s3_secret_access_key")


@asynccontextmanager
async def monitored_store(
    settings: Settings, monitor: Callable[[CheckedStore], MonitoredStore] = MonitoredStore
) -> AsyncIterator[MonitoredStore]:
    """The store of a server; `monitor` makes one of what it is to watch. Raises ConfigurationError as `opened_store`
    does.
    """
    async with _store_of_server(settings) as store:
        monitored = monitor(store)
        try:
            yield monitored
        finally:
            await monitored.close()


@asynccontextmanager
async def _store_of_server(settings: Settings) -> AsyncIterator[CheckedStore]:
    async with opened_store(settings, settings.image_store) as first:
        if settings.second_image_store is None:
            yield first
            return
        async with opened_store(settings, settings.second_image_store) as second:
            yield StorePair(first, second)


@asynccontextmanager
async def opened_store(settings: Settings, name: StoreName) -> AsyncIterator[FilesystemStore | S3Store]:
    """The store of this name. Raises ConfigurationError where a setting is missing or cannot be used."""
    if name == "disk":
        # A provider's image is paid: the queue holds as many as the provider may be drawing, so that none is refused.
        queue_max = _READS_MAX + 2 * settings.provider_calls_max
        folder = FilesystemStore(settings.data_dir / FOLDER, queue_max=queue_max)
        await folder.open()
        try:
            yield folder
        finally:
            await folder.close()
        return
    bucket = S3Store(_s3_settings(settings), redirect_seconds=settings.s3_redirect_seconds)
    try:
        yield bucket
    finally:
        await bucket.close()


def image_origins(settings: Settings) -> Sequence[str]:
    """The origins that clients are redirected to for images. Raises ConfigurationError as `opened_store` does."""
    if settings.image_store != "s3" or settings.s3_redirect_seconds is None:
        return ()
    return [endpoint(_s3_settings(settings))]


def _s3_settings(settings: Settings) -> S3Settings:
    missing = [name.upper() for name in _NEEDED if not getattr(settings, name)]
    if missing or settings.s3_access_key_id is None or settings.s3_secret_access_key is None:
        named_by = next((each for each in _NAMING if getattr(settings, each) == "s3"), None)
        wanted = f"{named_by.upper()} is s3" if named_by else "The bucket is needed"
        raise ConfigurationError(
            f"{wanted}, but {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing."
        )
    return S3Settings(
        bucket=settings.s3_bucket,
        access_key_id=settings.s3_access_key_id.get_secret_value(),
        secret_access_key=settings.s3_secret_access_key.get_secret_value(),
        endpoint=settings.s3_endpoint or None,
        region=settings.s3_region,
        prefix=settings.s3_prefix,
        allow_http=settings.s3_allow_http,
        egress=Egress.of(settings),
    )
