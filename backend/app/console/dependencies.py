"""What the console's routes depend on: the session that the request belongs to, and the form that it sends."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request, params

from app.console.csrf import check_origin
from app.console.forms import CSRF_FIELD, Rerender, SubmittedForm
from app.console.rendering import Page
from app.console.session import ConsoleSession
from app.console.state import console_of, state_of
from app.core.errors import NotFound
from app.core.schemas import Body
from app.features.auth.service import InvalidToken
from app.features.dependencies import services_of
from app.web.body import validated
from app.web.form import read_form
from app.web.query import query_value

Schema = TypeVar("Schema", bound=Body)

FormLimits = Callable[[ConsoleSession], AbstractAsyncContextManager[None]]
"""The limits that a form takes from. Entering raises what refuses it; the form is read, and acted on, inside."""


async def find_session(request: Request) -> ConsoleSession:
    """The session that the request's cookies name. The database is asked once for each request."""
    state = state_of(request)
    if state.session is None:
        services = services_of(request)
        currency = services.generations.catalogue.catalogue.currency
        session = ConsoleSession(request, console_of(request), services.sessions, currency=currency)
        await session.load_user()
        state.session = session
    return state.session


CurrentSession = Annotated[ConsoleSession, Depends(find_session)]


async def _logged_in(session: CurrentSession) -> ConsoleSession:
    if not session.is_logged_in:
        raise InvalidToken(credential_sent=False)
    return session


LoggedInSession = Annotated[ConsoleSession, Depends(_logged_in)]
"""A session with a user. `errors.py` redirects every other browser to the log-in page."""


async def _billing_session(session: LoggedInSession) -> ConsoleSession:
    if not session.has_balance:
        raise NotFound
    return session


BillingSession = Annotated[ConsoleSession, Depends(_billing_session)]
"""A session with a user, where accounts are charged. Where they are not, the page does not exist: raises NotFound."""


def find_next_page(request: Request) -> Page:
    """The page that a log-in redirects to: the one that `next` names, or the console's home.

    `next` is the name of a page and never a URL, so that no link can have a log-in redirect to another site.
    """
    console = console_of(request)
    return console.page_named(query_value(request, "next") or "") or console.home


NextPage = Annotated[Page, Depends(find_next_page)]


def form(
    schema: type[Schema],
    rerender: Rerender,
    *,
    limits: FormLimits = lambda _: nullcontext(),
    read_values: Callable[[Request], Awaitable[Mapping[str, Any]]] = read_form,
) -> params.Depends:
    """For signatures, as `new: Annotated[KeyCreate, form(KeyCreate, render)]`: the request's form as the given schema,
    which is the API's. `render` shows the form again if anything refuses it: empty, where its limits did.

    Raises, in this order: FormRefused for a form that another site sent, which takes from no limit; what the limits
    raise, before anything of the form is read; what `read_values` raises; InvalidCsrfToken for a form that is not this
    session's; what the schema raises.
    """

    async def read(request: Request) -> AsyncIterator[Schema]:
        check_origin(request, public_url=console_of(request).public_url)
        session = await find_session(request)
        state_of(request).form = SubmittedForm(session, {}, rerender)
        async with limits(session):
            values = dict(await read_values(request))
            csrf_token = values.pop(CSRF_FIELD, "")
            state_of(request).form = SubmittedForm(session, values, rerender)
            session.check_csrf_token(csrf_token)
            yield validated(schema, values)

    dependency: params.Depends = Depends(read, scope="function")
    return dependency
