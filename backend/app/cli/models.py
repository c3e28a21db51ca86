"""`nanobanana models`: an operator checks the file of models, and looks at what it offers."""

import asyncio
from collections.abc import Sequence

import click

from app.catalogue.configured import catalogue_of
from app.catalogue.model import Model
from app.catalogue.prices import format_amount
from app.checks import RouteCheck, check_routes
from app.cli.errors import errors_as_sentences
from app.core.settings_loading import load_settings


@click.group()
def models() -> None:
    """Look after the models that callers can ask for."""


@models.command()
def check() -> None:
    """Read MODELS_FILE, and say where it is wrong: a line for each mistake. Calls no provider."""
    with errors_as_sentences():
        catalogue = catalogue_of(load_settings())
        routes = sum(len(model.routes) for model in catalogue)
        click.echo(f"ok: models: {len(catalogue.models)}, routes: {routes}, default: {catalogue.default}")


@models.command("list")
@click.option("--offline", is_flag=True, help="Try no route.")
def list_models(*, offline: bool) -> None:
    """Print every model with its names, sizes and prices, and try its routes by requests that cost nothing."""
    with errors_as_sentences():
        settings = load_settings()
        catalogue = catalogue_of(settings)
        checks = [] if offline else asyncio.run(check_routes(settings))
        for model in catalogue:
            marks = " (default)" if model.name == catalogue.default else ""
            click.echo(f"{model.name}{marks}: {model.title}")
            for line in _lines(model, catalogue.currency, [each for each in checks if each.model == model.name]):
                click.echo(f"  {line}")


def _lines(model: Model, currency: str | None, checks: Sequence[RouteCheck]) -> Sequence[str]:
    price = model.prices.written
    amounts = price if isinstance(price, str) else ", ".join(f"{name} {each}" for name, each in price.items())
    facts = {
        "aliases": ", ".join(model.aliases),
        "sizes": ", ".join(map(str, model.sizes)) or "any that the stub draws",
        "qualities": ", ".join(model.qualities),
        "capabilities": ", ".join(model.capabilities),
        "price": f"{amounts} {currency}" if currency else "",
        "price of an image that goes in": f"{format_amount(model.input_price)} {currency}" if model.input_price else "",
    }
    routes = [f"route {each.name}: {each.provider} {each.model}".rstrip() for each in model.routes]
    health = {each.route.name: each.failure or each.result for each in checks}
    tried = [
        f"{line}: {health[route.name]}" if route.name in health else line
        for line, route in zip(routes, model.routes, strict=True)
    ]
    return [*(f"{name}: {fact}" for name, fact in facts.items() if fact), *tried]
