"""What the routes of billing are given besides the services."""

from typing import Annotated

from fastapi import Depends

from app.features.dependencies import CurrentServices


def _currency(services: CurrentServices) -> str | None:
    return services.generations.catalogue.catalogue.currency


Currency = Annotated[str | None, Depends(_currency)]
"""The currency of all amounts; None where no model has a price."""
