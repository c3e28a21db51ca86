"""The same call as tutorials write it: one session per request, the key by a SELECT, usage by an upsert, a commit."""

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated

from app.core.security import new_timed_id
from app.models import ApiKey, Generation, Usage
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

engine = create_async_engine(os.environ["DATABASE_URL"], pool_size=20, max_overflow=20)
sessions = async_sessionmaker(engine, expire_on_commit=False)
app = FastAPI()
bearer = HTTPBearer()


class Order(BaseModel):
    prompt: str = Field(min_length=1, max_length=4000)
    size: str = "1024x1024"


class Picture(BaseModel):
    id: str
    url: str
    prompt: str
    created_at: datetime


async def open_session() -> AsyncIterator[AsyncSession]:
    async with sessions() as session:
        yield session


@app.post("/v1/generate")
async def generate(
    order: Order,
    credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)],
    session: Annotated[AsyncSession, Depends(open_session)],
) -> Picture:
    key_hash = sha256(credentials.credentials.encode()).digest()
    key = await session.scalar(select(ApiKey).where(ApiKey.key_hash == key_hash, ApiKey.revoked_at.is_(None)))
    if key is None:
        raise HTTPException(status_code=401, detail="Invalid API key")
    now = datetime.now(UTC)
    key.last_used_at = now
    generation = Generation(
        id=new_timed_id("gen", now=now.timestamp()),
        key_id=key.id,
        prompt=order.prompt,
        size=order.size,
        provider="stub",
        status="delivered",
        delivered_at=func.now(),
    )
    session.add(generation)
    counter = insert(Usage).values(key_id=key.id, day=now.date(), pictures=1)
    add = {"pictures": Usage.pictures + 1}
    await session.execute(counter.on_conflict_do_update(index_elements=[Usage.key_id, Usage.day], set_=add))
    await session.commit()
    url = f"http://127.0.0.1/v1/images/{generation.id}.png"
    return Picture(id=generation.id, url=url, prompt=order.prompt, created_at=generation.created_at)
