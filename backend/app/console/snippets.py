"""Code to copy: one API request in several languages."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

PROMPT, SIZE = "A cute banana", "1024x1024"


@dataclass(frozen=True)
class Snippet:
    """A piece of code to copy. It reads the API key from the environment, so that no page shows the key again."""

    id: str
    title: str
    code: str


def snippets(public_url: str, values: Mapping[str, str]) -> list[Snippet]:
    """The request for a generation with the prompt and size in `values`, in curl, in Python, and with OpenAI's SDK."""
    body = {"prompt": values.get("prompt") or PROMPT, "size": values.get("size") or SIZE}
    hints = {name: values[name] for name in ("model", "quality") if values.get(name) not in {None, "", "auto"}}
    body |= hints
    return [
        Snippet("curl", "curl", _curl(public_url, body)),
        Snippet("python", "Python", _PYTHON.format(url=json.dumps(f"{public_url}/v1/generate"), body=repr(body))),
        Snippet(
            "openai",
            "OpenAI SDK",
            _OPENAI.format(
                url=json.dumps(f"{public_url}/v1"),
                arguments=", ".join(f"{name}={value!r}" for name, value in body.items()),
            ),
        ),
    ]


def _curl(public_url: str, body: Mapping[str, str]) -> str:
    quoted = shlex.quote(json.dumps(body, ensure_ascii=False))
    return (
        f"curl {public_url}/v1/generate \\\n"
        '  -H "Authorization: Bearer $KEY" \\\n'
        "  -H 'Content-Type: application/json' \\\n"
        f"  -d {quoted}"
    )


_PYTHON = """import os

import httpx

answer = httpx.post(
    {url},
    headers={{"Authorization": f"Bearer {{os.environ['KEY']}}"}},
    json={body},
    timeout=120,
)
answer.raise_for_status()
print(answer.json()["url"])"""

_OPENAI = """import os

from openai import OpenAI

client = OpenAI(base_url={url}, api_key=os.environ["KEY"])
picture = client.images.generate({arguments})
print(picture.data[0].url)"""
