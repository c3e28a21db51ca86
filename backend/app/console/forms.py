"""Forms: what the user has entered, which errors the page shows beside it, and how a refused form is shown again."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from fastapi.responses import HTMLResponse

from app.console.session import ConsoleSession
from app.core.errors import ApiError
from app.core.schemas import Body

CSRF_FIELD = "csrf_token"
"""The hidden field that every form has besides those of its schema."""


class EmptyForm(Body):
    """A form that is only a button."""


@dataclass(frozen=True)
class FormState:
    """What a page shows in its form: the values that the user has entered, and the error that refused them."""

    values: Mapping[str, str] = field(default_factory=dict)
    error: ApiError | None = None

    def error_at(self, name: str) -> str | None:
        """The sentence that the page shows beside the field with this name."""
        return self._errors.get(f"#/{name}")

    def message(self, *names: str) -> str | None:
        """The sentences that the page shows above the form: all but those beside the fields with these names."""
        if self.error is None:
            return None
        beside = {f"#/{name}" for name in names}
        others = [sentence for pointer, sentence in self._errors.items() if pointer not in beside]
        if others or not self._errors:
            wait = self.error.headers.get("Retry-After")
            retry = f"Try again in {wait} {'second' if wait == '1' else 'seconds'}." if wait else ""
            sentences = [f"{sentence.rstrip('.')}." for sentence in others or [self.error.sentence]]
            return " ".join([*sentences, retry]).strip()
        return None

    @property
    def _errors(self) -> Mapping[str, str]:
        found = self.error.members.get("errors", ()) if self.error else ()
        return {each.get("pointer", "#"): each["detail"] for each in found}


UNSENT = FormState()
"""A form that the user has not sent yet."""

Rerender = Callable[[ConsoleSession, FormState], Awaitable[HTMLResponse]]
"""Renders the page that a form is on."""


@dataclass(frozen=True)
class SubmittedForm:
    """A form that was read. If anything refuses it from then on, `rerender` shows it again with the values entered."""

    session: ConsoleSession
    values: Mapping[str, str]
    rerender: Rerender
