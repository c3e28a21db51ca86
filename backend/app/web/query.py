"""Parameters of the query. One that is sent twice is refused: of two values, two programs could read different ones."""

from collections.abc import Iterable
from typing import Annotated, TypeVar

from fastapi import Depends, Query, Request, params
from pydantic import BaseModel

from app.core.errors import Invalid

Schema = TypeVar("Schema", bound=BaseModel)


def query_of(schema: type[Schema]) -> params.Depends:
    """For signatures: `query: Annotated[PageQuery, query_of(PageQuery)]`, the parameters of the query as the schema.

    Raises Invalid for a parameter of the schema that was sent more than once.
    """
    names = [field.alias or name for name, field in schema.model_fields.items()]

    async def read(request: Request, sent: Schema) -> Schema:
        _refuse_repeated(request, names)
        return sent

    read.__annotations__["sent"] = Annotated[schema, Query()]  # FastAPI reads and documents the fields
    dependency: params.Depends = Depends(read)
    return dependency


def query_value(request: Request, name: str) -> str | None:
    """The value of one parameter, for pages that take it as it is; None where it was not sent.

    Raises Invalid where it was sent more than once.
    """
    _refuse_repeated(request, [name])
    return request.query_params.get(name)


def _refuse_repeated(request: Request, names: Iterable[str]) -> None:
    repeated = [name for name in names if len(request.query_params.getlist(name)) > 1]
    if repeated:
        raise Invalid([{"parameter": name, "detail": "Must not be sent more than once"} for name in repeated])
