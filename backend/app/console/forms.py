"""Forms: what the user has entered, which errors the page shows beside it, and how a refused form is shown again."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi.responses import HTMLResponse

from app.console.session import ConsoleSession
from app.core.errors import ApiError
from app.core.schemas import Body
from app.generations.errors import BudgetExceeded, InsufficientCredit

CSRF_FIELD = "csrf_token"
"""The hidden field that every form has besides those of its schema."""


class EmptyForm(Body):
    """A form that is only a button."""


@dataclass(frozen=True)
class FormState:
    """What a page shows in its form: the values that the user has entered, and the error that refused them."""

    values: Mapping[str, Any] = field(default_factory=dict)
    """Of each field its text; of one that takes images, what was sent."""
    error: ApiError | None = None

    def error_at(self, name: str) -> str | None:
        """The sentence that the page shows beside the field with this name."""
        return self._errors.get(f"#/{name}")

    def errors_in(self, name: str) -> Sequence[tuple[int, str]]:
        """The sentences that the page shows beside single items of the field with this name, with their places in it,
        from 0.
        """
        found = ((re.fullmatch(rf"#/{name}/(\d+)", pointer), sentence) for pointer, sentence in self._errors.items())
        return [(int(place[1]), sentence) for place, sentence in found if place]

    def message(self, *names: str) -> str | None:
        """The sentences that the page shows above the form: all but those beside the fields with these names."""
        if self.error is None:
            return None
        others = [sentence for pointer, sentence in self._errors.items() if _field_of(pointer) not in names]
        if others or not self._errors:
            wait = self.error.headers.get("Retry-After")
            retry = f"Try again in {wait} {'second' if wait == '1' else 'seconds'}." if wait else ""
            sentences = [f"{sentence.rstrip('.')}." for sentence in others or [self.error.sentence]]
            return " ".join([*sentences, retry]).strip()
        return None

    @property
    def needs_money(self) -> bool:
        """Whether credit or a cap has refused the form."""
        return isinstance(self.error, InsufficientCredit | BudgetExceeded)

    @property
    def _errors(self) -> Mapping[str, str]:
        found = self.error.members.get("errors", ()) if self.error else ()
        return {each.get("pointer", "#"): each["detail"] for each in found}


def _field_of(pointer: str) -> str:
    """The field that a pointer is to, or into: `images` of `#/images/0`."""
    return pointer.removeprefix("#/").partition("/")[0]


UNSENT = FormState()
"""A form that the user has not sent yet."""

Rerender = Callable[[ConsoleSession, FormState], Awaitable[HTMLResponse]]
"""Renders the page that a form is on."""


@dataclass(frozen=True)
class SubmittedForm:
    """A form that was read. If anything refuses it from then on, `rerender` shows it again with the values entered."""

    session: ConsoleSession
    values: Mapping[str, Any]
    rerender: Rerender
