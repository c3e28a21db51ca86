"""One call, in the words of whoever will make it elsewhere."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

PROMPT, SIZE = "A cute banana", "1024x1024"


@dataclass(frozen=True)
class Snippet:
    """A piece of code to copy. The key is not in it: it is read from the environment."""

    id: str
    title: str
    code: str


def snippets(public_url: str, values: Mapping[str, str]) -> list[Snippet]:
    """The call that makes this picture, in curl, in Python, and with OpenAI's SDK."""
    order = {"prompt": values.get("prompt") or PROMPT, "size": values.get("size") or SIZE}
    return [
        Snippet("curl", "curl", _curl(public_url, order)),
        Snippet("python", "Python", _PYTHON.format(url=json.dumps(f"{public_url}/v1/generate"), order=repr(order))),
        Snippet(
            "openai",
            "OpenAI SDK",
            _OPENAI.format(url=json.dumps(f"{public_url}/v1"), prompt=repr(order["prompt"]), size=repr(order["size"])),
        ),
    ]


def _curl(public_url: str, order: Mapping[str, str]) -> str:
    body = shlex.quote(json.dumps(order, ensure_ascii=False))
    return (
        f"curl {public_url}/v1/generate \\\n"
        '  -H "Authorization: Bearer $KEY" \\\n'
        "  -H 'Content-Type: application/json' \\\n"
        f"  -d {body}"
    )


_PYTHON = """import os

import httpx

answer = httpx.post(
    {url},
    headers={{"Authorization": f"Bearer {{os.environ['KEY']}}"}},
    json={order},
    timeout=120,
)
answer.raise_for_status()
print(answer.json()["url"])"""

_OPENAI = """import os

from openai import OpenAI

client = OpenAI(base_url={url}, api_key=os.environ["KEY"])
picture = client.images.generate(prompt={prompt}, size={size})
print(picture.data[0].url)"""
