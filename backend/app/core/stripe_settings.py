"""The settings of Stripe."""

import re

from pydantic import BaseModel, Field, SecretStr, field_validator

from app.core.image_settings import LOCAL_HOSTS
from app.core.url_format import split_url

_STRIPE_KEY = re.compile(r"[sr]k_(test|live)_[A-Za-z0-9_]+", re.ASCII)
_WEBHOOK_SECRET = re.compile(r"whsec_[A-Za-z0-9+/=_-]+", re.ASCII)
_SECRETS_MAX = 2


class StripeSettings(BaseModel):
    """Payments by Stripe. Without a key, credit comes from the operator alone."""

    stripe_secret_key: SecretStr | None = Field(
        default=None,
        description=(
            "Stripe's secret or restricted key, `sk_live_...` or `rk_live_...`; with `sk_test_...` or `rk_test_...` no "
            "money moves. Without it, credit comes from the operator alone."
        ),
    )
    stripe_webhook_secret: SecretStr | None = Field(
        default=None,
        description=(
            "The secret `whsec_...` that signs the events that Stripe sends, as `nanobanana billing sync` prints it. "
            "Two, comma-separated, while one replaces the other."
        ),
    )
    stripe_api_url: str = Field(
        default="https://api.stripe.com",
        description="Stripe's API, or a proxy for it: an `https` URL without a path, or `http` on loopback.",
    )
    stripe_tax: bool = Field(
        default=False,
        description=(
            "Whether Stripe Tax adds taxes at checkouts, and asks for addresses and tax numbers. It has to be set up "
            "at Stripe before."
        ),
    )

    grace_days: int = Field(
        default=7,
        ge=0,
        le=90,
        description="How many days a plan goes on while a payment for it is missing; a payment resumes it later too.",
    )

    @field_validator("stripe_secret_key")
    @classmethod
    def _is_secret_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _STRIPE_KEY.fullmatch(value.get_secret_value()):
            raise ValueError("must begin with sk_live_, rk_live_, sk_test_ or rk_test_")
        return value

    @field_validator("stripe_webhook_secret")
    @classmethod
    def _are_webhook_secrets(cls, value: SecretStr | None) -> SecretStr | None:
        secrets = _split(value)
        if value is not None and not (
            0 < len(secrets) <= _SECRETS_MAX and all(map(_WEBHOOK_SECRET.fullmatch, secrets))
        ):
            raise ValueError("must be one or two secrets that begin with whsec_, separated by a comma")
        return value

    @field_validator("stripe_api_url")
    @classmethod
    def _is_safe_url(cls, value: str) -> str:
        url = split_url(value)
        is_safe = url.scheme == "https" or (url.scheme == "http" and url.hostname in LOCAL_HOSTS)
        if not is_safe or not url.hostname or value.rstrip("/") != f"{url.scheme}://{url.netloc}" or "@" in url.netloc:
            raise ValueError("must be an https URL without a path, or an http URL of a loopback address")
        return value.rstrip("/")

    @property
    def stripe_is_live(self) -> bool:
        """Whether the key moves money. False without a key."""
        key = self.stripe_secret_key
        return key is not None and "_live_" in key.get_secret_value()[:8]

    @property
    def stripe_webhook_secrets(self) -> tuple[str, ...]:
        """The secrets that an event may be signed with."""
        return tuple(_split(self.stripe_webhook_secret))


def _split(value: SecretStr | None) -> list[str]:
    return [each.strip() for each in value.get_secret_value().split(",")] if value else []
