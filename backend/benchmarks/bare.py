"""The yardstick: a FastAPI route that parses a body and answers, and does nothing else."""

from fastapi import FastAPI
from pydantic import BaseModel, Field

app = FastAPI()


class Order(BaseModel):
    prompt: str = Field(min_length=1, max_length=4000)
    size: str = "1024x1024"


class Picture(BaseModel):
    id: str
    url: str
    prompt: str
    created_at: str


@app.post("/v1/generate")
async def generate(order: Order) -> Picture:
    return Picture(id="gen_1", url="http://127.0.0.1/v1/images/gen_1.png", prompt=order.prompt, created_at="2026-11-23")
