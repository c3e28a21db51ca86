"""Code to copy: one API request in several languages."""

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

PROMPT, SIZE = "A cute banana", "1024x1024"


@dataclass(frozen=True)
class Snippet:
    """A piece of code to copy. It reads the API key from the environment, so that no page shows the key again."""

    id: str
    title: str
    code: str


@dataclass(frozen=True)
class SnippetImage:
    """An image that goes in: an earlier one of the account, by id and URL; or a file, which the code reads by name."""

    name: str
    id: str | None = None
    url: str = ""


@dataclass(frozen=True)
class SnippetRequest:
    """The request for a generation: its fields that are text, the images that go in, and their mask."""

    fields: Mapping[str, str]
    images: Sequence[SnippetImage]
    mask: SnippetImage | None

    @property
    def has_files(self) -> bool:
        return any(each.id is None for each in (*self.images, *([self.mask] if self.mask else [])))


def snippets(
    public_url: str,
    values: Mapping[str, str],
    images: Sequence[SnippetImage] = (),
    mask: SnippetImage | None = None,
) -> list[Snippet]:
    """The request for a generation with the prompt and size in `values`, in curl, in Python, and with OpenAI's SDK."""
    fields = {"prompt": values.get("prompt") or PROMPT, "size": values.get("size") or SIZE}
    hints = {name: values[name] for name in ("model", "quality") if values.get(name) not in {None, "", "auto"}}
    request = SnippetRequest(fields | hints, images, mask)
    return [
        Snippet("curl", "curl", _curl(public_url, request)),
        Snippet("python", "Python", _python(public_url, request)),
        Snippet("openai", "OpenAI SDK", _openai_sdk(public_url, request)),
    ]


def _curl(public_url: str, request: SnippetRequest) -> str:
    head = (
        f"curl {public_url}/v1/generate \\\n"
        '  -H "Authorization: Bearer $KEY" \\\n'
        "  -H 'Content-Type: application/json' \\\n"
    )
    if not request.has_files:
        return f"{head}  -d {shlex.quote(_object(_json, request, _json_image))}"
    # From a here-document, since no argument of a command may be as long as a file.
    return f"{head}  -d @- <<END\n{_object(_in_here_document, request, _json_image)}\nEND"


def _python(public_url: str, request: SnippetRequest) -> str:
    imports, function = ("import base64\n", _DATA_URL) if request.has_files else ("", "\n")
    body = _object(repr, request, lambda image: repr(image.id) if image.id else f'data_url("{image.name}")')
    return f"{imports}{_PYTHON.format(url=_json(f'{public_url}/v1/generate'), body=body, function=function)}"


def _openai_sdk(public_url: str, request: SnippetRequest) -> str:
    arguments = [f"{name}={value!r}" for name, value in request.fields.items()]
    if request.images:
        arguments += [f"image=[{', '.join(map(_opened, request.images))}]", 'response_format="url"']
    if request.mask:
        arguments.append(f"mask={_opened(request.mask)}")
    return _OPENAI.format(
        imports="from urllib.request import urlopen\n" if any(each.id for each in request.images) else "",
        url=_json(f"{public_url}/v1"),
        method="edit" if request.images else "generate",
        arguments=", ".join(arguments),
    )


def _object(quote: Callable[[str], str], request: SnippetRequest, text_of: Callable[[SnippetImage], str]) -> str:
    """The request's body in a language whose texts and images are written so."""
    members = {name: quote(value) for name, value in request.fields.items()}
    if request.images:
        members["images"] = f"[{', '.join(map(text_of, request.images))}]"
    if request.mask:
        members["mask"] = text_of(request.mask)
    return f"{{{', '.join(f'{quote(name)}: {value}' for name, value in members.items())}}}"


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _in_here_document(text: str) -> str:
    return re.sub(r"[\\$`]", r"\\\g<0>", _json(text))


def _json_image(image: SnippetImage) -> str:
    # curl takes the line breaks of the base64 out, as it does with all that it is to send.
    return _json(image.id) if image.id else f'"data:image/png;base64,$(base64 < {image.name})"'


def _opened(image: SnippetImage) -> str:
    return f'("{image.name}", urlopen("{image.url}").read())' if image.id else f'open("{image.name}", "rb")'


_DATA_URL = """

def data_url(path):
    with open(path, "rb") as file:
        return "data:image/png;base64," + base64.b64encode(file.read()).decode()


"""

_PYTHON = """import json
import os
from urllib.request import Request, urlopen
{function}request = Request(
    {url},
    data=json.dumps({body}).encode(),
    headers={{"Authorization": f"Bearer {{os.environ['KEY']}}", "Content-Type": "application/json"}},
)
with urlopen(request, timeout=120) as answer:
    print(json.load(answer)["url"])"""

_OPENAI = """# pip install openai
import os
{imports}
from openai import OpenAI

client = OpenAI(base_url={url}, api_key=os.environ["KEY"])
image = client.images.{method}({arguments})
print(image.data[0].url)"""
