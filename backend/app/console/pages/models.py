"""Models: what each can draw, and what it costs."""

from collections.abc import Sequence

from fastapi.responses import HTMLResponse

from app.billing.subscriptions import find_models
from app.catalogue.model import Model
from app.console.dependencies import LoggedInSession
from app.console.image_inputs import takes_of
from app.console.rendering import Page
from app.features.dependencies import CurrentGenerations

page = Page("/models", template="models.html", label="Models")

_ABILITIES = {
    "mask": "follow a mask",
    "transparent": "leave the background transparent",
    "compression": "compress",
    "stream": "send sketches",
}
"""Of the capabilities that have no column of their own, in plain words."""


@page.router.get(page.path)
async def show_models(session: LoggedInSession, generations: CurrentGenerations) -> HTMLResponse:
    """Show every model that the account's plan has, the default one first."""
    catalogue = generations.catalogue.catalogue
    async with session.transaction() as database:
        models = await find_models(database, catalogue, account_id=session.user.account_id)
    rows = [(each, _abilities(each)) for each in models]
    return session.render(page.template, models=rows, currency=catalogue.currency, default=catalogue.default)


def _abilities(model: Model) -> Sequence[str]:
    """What it can do besides drawing from a prompt."""
    most = takes_of([model]).images
    images = ["edit an image" if most == 1 else f"edit up to {most} images"] if most else []
    return [*images, *(words for name, words in _ABILITIES.items() if name in model.capabilities)]
