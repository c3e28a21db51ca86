"""Forms that clients post as multipart/form-data, as the email package reads them."""

from dataclasses import dataclass
from email.parser import BytesParser
from email.policy import HTTP

from tests.standins.wire import Seen


@dataclass(frozen=True)
class File:
    """A file of a form."""

    field: str
    name: str
    media_type: str
    content: bytes


def read_form(seen: Seen) -> tuple[dict[str, str], list[File]]:
    """The texts of a form by their names, and its files in order. Raises ValueError for anything but a whole form."""
    head = f"Content-Type: {seen.headers.get('content-type', '')}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + seen.body)
    boundary = message.get_boundary()
    if message.get_content_type() != "multipart/form-data" or boundary is None or message.defects:
        raise ValueError("not a form")
    if not seen.body.endswith(f"\r\n--{boundary}--\r\n".encode()):
        raise ValueError("cut off")
    texts, files = dict[str, str](), list[File]()
    for part in message.iter_parts():
        name, filename = (part.get_param(each, header="content-disposition") for each in ("name", "filename"))
        content = part.get_payload(decode=True)
        if part.get_content_disposition() != "form-data" or not name or not isinstance(content, bytes) or part.defects:
            raise ValueError("not a part of a form")
        if filename is not None:
            files.append(File(str(name), str(filename), part.get_content_type(), content))
        elif name in texts:
            raise ValueError("twice the same field")
        else:
            texts[str(name)] = content.decode()
    return texts, files
