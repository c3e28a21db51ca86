"""A deployment of a test's own, with a disk and a bucket, of which its settings say which one keeps the images."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from app.core.db import SessionMaker, create_engine
from app.core.image_settings import StoreName
from app.core.settings import Settings
from app.storage.configured import opened_store
from app.storage.filesystem import FilesystemStore
from app.storage.s3 import S3Store
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import async_sessionmaker
from tests.standins.s3 import S3Server, s3_server

STORES: tuple[StoreName, ...] = ("disk", "s3")


def other(name: StoreName) -> StoreName:
    return "s3" if name == "disk" else "disk"


@dataclass(frozen=True)
class Deployment:
    """Its database, its folder and its bucket, and both stores as the test itself has them open."""

    database_url: str
    data_dir: Path
    bucket: S3Server
    sessions: SessionMaker
    stores: Mapping[StoreName, FilesystemStore | S3Store]

    @property
    def environment(self) -> Mapping[str, str]:
        """What a command needs besides DATA_DIR."""
        account = {"S3_ACCESS_KEY_ID": self.bucket.key_id, "S3_SECRET_ACCESS_KEY": self.bucket.secret}
        return {"DATABASE_URL": self.database_url, "S3_BUCKET": "pictures", "S3_ENDPOINT": self.bucket.url, **account}

    @property
    def settings(self) -> Mapping[str, object]:
        """The same for a server."""
        return _settings(self.database_url, self.data_dir, self.bucket)

    def files(self, store: StoreName) -> dict[str, bytes]:
        """What is kept there, by name."""
        if store == "s3":
            return {name: each.content for name, each in self.bucket.buckets["pictures"].items()}
        return {each.name: each.read_bytes() for each in (self.data_dir / "pictures").rglob("gen_*")}


def _settings(database_url: str, data_dir: Path, bucket: S3Server) -> Mapping[str, object]:
    return {
        "database_url": SecretStr(database_url),
        "data_dir": data_dir,
        "s3_bucket": "pictures",
        "s3_endpoint": bucket.url,
        "s3_access_key_id": bucket.key_id,
        "s3_secret_access_key": SecretStr(bucket.secret),
    }


@asynccontextmanager
async def deployed(database_url: str, data_dir: Path) -> AsyncIterator[Deployment]:
    engine = create_engine(database_url, pool_size=2)
    with s3_server("pictures") as bucket:
        settings = Settings(**_settings(database_url, data_dir, bucket))
        async with opened_store(settings, "disk") as disk, opened_store(settings, "s3") as s3:
            stores: Mapping[StoreName, FilesystemStore | S3Store] = {"disk": disk, "s3": s3}
            yield Deployment(database_url, data_dir, bucket, async_sessionmaker(engine), stores)
    await engine.dispose()
