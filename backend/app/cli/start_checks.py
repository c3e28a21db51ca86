"""What `serve` and `work` check before they start, besides the database."""

from collections.abc import Sequence

from app import checks
from app.core.settings import Settings


def check_limits(settings: Settings) -> Sequence[str]:
    """A sentence of warning where Redis does not answer. Raises ConfigurationError for a wrong URL of it."""
    try:
        checks.check_redis(settings)
    except checks.DependencyUnavailable as error:
        return [f"{error} Until it can, each process limits by itself."]
    return []


def check_payments(settings: Settings) -> Sequence[str]:
    """Sentences of warning where payments of customers are no money, or are noticed late."""
    if settings.stripe_secret_key is None:
        return []
    warnings = []
    if not settings.stripe_is_live:
        warnings.append("STRIPE_SECRET_KEY is a test key: customers pay nothing for their credit and plans.")
    if not settings.stripe_webhook_secrets:
        warnings.append(
            "STRIPE_WEBHOOK_SECRET is not set: payments are noticed minutes late. `nanobanana billing sync` prints one."
        )
    return warnings


def check_images(settings: Settings) -> Sequence[str]:
    """Raises ConfigurationError for wrong settings of the store or the provider; only returns a sentence of warning
    where one of them cannot be used now, since accounts, test keys and stored images need no provider.
    """
    warnings = []
    for check in (checks.check_store, checks.check_provider):
        try:
            check(settings)
        except checks.DependencyUnavailable as error:
            warnings.append(f"{error} Until that is mended, live keys may get no images.")
    return warnings
