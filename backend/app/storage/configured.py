"""The store that the settings name."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from app.core.settings import ConfigurationError, Settings
from app.storage.account import S3Account, endpoint
from app.storage.filesystem import FilesystemStore
from app.storage.s3 import S3Store

FOLDER = "pictures"
"""Where pictures are on disk, in DATA_DIR."""

_READS_MAX = 1024
_NEEDED = ("s3_bucket", "s3_access_key_id", "s3_secret_access_key")


@asynccontextmanager
async def configured_store(settings: Settings) -> AsyncIterator[FilesystemStore | S3Store]:
    """Where pictures are kept, open. Raises ConfigurationError where a setting is missing or cannot be used."""
    if settings.image_store == "disk":
        # What was drawn elsewhere is paid: as much of it as can be on its way finds room to be kept.
        queue_max = _READS_MAX + 2 * settings.provider_calls_max
        folder = FilesystemStore(settings.data_dir / FOLDER, queue_max=queue_max)
        await folder.open()
        try:
            yield folder
        finally:
            await folder.close()
        return
    bucket = S3Store(_account(settings), redirect_seconds=settings.s3_redirect_seconds)
    try:
        yield bucket
    finally:
        await bucket.close()


def picture_origins(settings: Settings) -> Sequence[str]:
    """Where, besides our own, callers are led for pictures. Raises ConfigurationError as `configured_store` does."""
    if settings.image_store != "s3" or settings.s3_redirect_seconds is None:
        return ()
    return [endpoint(_account(settings))]


def _account(settings: Settings) -> S3Account:
    missing = [name.upper() for name in _NEEDED if not getattr(settings, name)]
    if missing or settings.s3_secret_access_key is None:
        raise ConfigurationError(f"IMAGE_STORE is s3, but {' and '.join(missing)} is missing.")
    return S3Account(
        bucket=settings.s3_bucket,
        access_key_id=settings.s3_access_key_id,
        secret_access_key=settings.s3_secret_access_key.get_secret_value(),
        endpoint=settings.s3_endpoint or None,
        region=settings.s3_region,
        prefix=settings.s3_prefix,
        allow_http=settings.s3_allow_http,
    )
