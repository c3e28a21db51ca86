"""Models: what each can draw, and what it costs."""

from fastapi.responses import HTMLResponse

from app.console.dependencies import LoggedInSession
from app.console.rendering import Page
from app.features.dependencies import CurrentGenerations

page = Page("/models", template="models.html", label="Models")


@page.router.get(page.path)
async def show_models(session: LoggedInSession, generations: CurrentGenerations) -> HTMLResponse:
    """Show every model, the default one first."""
    catalogue = generations.catalogue.catalogue
    models = sorted(catalogue, key=lambda each: each.name != catalogue.default)
    return session.render(page.template, models=models, currency=catalogue.currency)
