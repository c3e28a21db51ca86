"""Forms: what was typed, what is wrong with it, and the proof that it came from a page of ours."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from fastapi import Depends, Request, params

from app.console.site import Page
from app.console.visits import Visitor, check_origin, find_visitor
from app.core.errors import ApiError
from app.core.schemas import Body
from app.web.body import validated
from app.web.form import read_form


class Nothing(Body):
    """A form of a button alone."""


Schema = TypeVar("Schema", bound=Body)

PROOF = "proof"
"""The field that every form has besides its own."""


@dataclass(frozen=True)
class Draft:
    """A form as it was filled in, and why it was refused. Empty at first."""

    values: Mapping[str, str] = field(default_factory=dict)
    error: ApiError | None = None

    def error_at(self, name: str) -> str | None:
        """What is wrong with a field, in words."""
        return self._errors.get(f"#/{name}")

    def message(self, *names: str) -> str | None:
        """What is wrong besides what stands next to the fields of these names."""
        if self.error is None:
            return None
        beside = {f"#/{name}" for name in names}
        others = [sentence for pointer, sentence in self._errors.items() if pointer not in beside]
        if others or not self._errors:
            wait = self.error.headers.get("Retry-After")
            soon = f"Try again in {wait} {'second' if wait == '1' else 'seconds'}." if wait else ""
            return " ".join(
                [*(f"{sentence.rstrip('.')}." for sentence in others or [self.error.sentence]), soon]
            ).strip()
        return None

    @property
    def _errors(self) -> Mapping[str, str]:
        found = self.error.members.get("errors", ()) if self.error else ()
        return {each.get("pointer", "#"): each["detail"] for each in found}


Again = Callable[[Visitor, Draft], Awaitable[Page]]
"""Shows the page with the form, as it was filled in."""


@dataclass(frozen=True)
class Refusable:
    """A form that was read. Whatever refuses it from now on, its page is shown again with what was typed."""

    visitor: Visitor
    values: Mapping[str, str]
    again: Again


@dataclass(frozen=True)
class Form(Generic[Schema]):
    """A dependency: the request's form as the given schema, which is the API's.

    Raises Forbidden for a form that another site sent, or that is not of this visitor's pages; then what `read_form`
    and the schema raise.
    """

    schema: type[Schema]
    again: Again

    async def __call__(self, request: Request) -> Schema:
        check_origin(request)
        visitor = await find_visitor(request)
        values = dict(await read_form(request))
        proof = values.pop(PROOF, "")
        request.state.refusable = Refusable(visitor, values, self.again)
        visitor.check(proof)
        return validated(self.schema, values)


def form(schema: type[Body], *, again: Again) -> params.Depends:
    """For signatures: `new: Annotated[KeyCreate, form(KeyCreate, again=show)]`."""
    dependency: params.Depends = Depends(Form(schema, again))
    return dependency
