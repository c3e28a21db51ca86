"""The settings of CORS."""

import re
from typing import Annotated

from pydantic import BaseModel, Field, field_validator
from pydantic_settings import NoDecode

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?P<port>:[1-9][0-9]{0,4})?")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class CorsSettings(BaseModel):
    """Calls from browsers, by pages of other origins (CORS)."""

    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description=(
            "Origins, comma-separated, such as `https://app.example.com`, whose pages may call `/v1` from a browser, "
            "`/v1/auth` excepted; `*` for all. By default none."
        ),
    )

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _origins(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        origins = tuple(part.strip() for part in value.split(",") if part.strip())
        if origins != ("*",) and not all(map(_is_origin, origins)):
            raise ValueError(
                "must be origins as browsers write them, such as https://app.example.com, separated by commas "
                "(lower case, no path, no default port), or * alone"
            )
        return origins


def _is_origin(text: str) -> bool:
    match = _ORIGIN.fullmatch(text)
    return match is not None and match["port"] != _DEFAULT_PORTS.get(text.partition(":")[0], "")
