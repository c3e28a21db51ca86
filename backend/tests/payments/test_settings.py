"""Which of Stripe's settings can be used."""

import pytest
from app.core.settings import Settings
from pydantic import ValidationError

HIDDEN = "0123456789abcdef"


@pytest.mark.parametrize(
    "settings",
    [
        {"stripe_secret_key": HIDDEN},
        {"stripe_secret_key": f"pk_live_{HIDDEN}"},
        {"stripe_secret_key": f"sk_live_{HIDDEN} x"},
        {"stripe_webhook_secret": HIDDEN},
        {"stripe_webhook_secret": f"whsec_{HIDDEN},whsec_b,whsec_c"},
        {"stripe_webhook_secret": f"whsec_{HIDDEN},"},
        {"stripe_api_url": "http://api.stripe.com"},
        {"stripe_api_url": "http://127.0.0.1.example.com"},
        {"stripe_api_url": "http://10.0.0.1:80"},
        {"stripe_api_url": f"https://user:{HIDDEN}@api.stripe.com"},
        {"stripe_api_url": "https://api.stripe.com/v1"},
        {"stripe_api_url": "https://api.stripe.com?a=b"},
        {"stripe_api_url": "ftp://127.0.0.1"},
        {"stripe_api_url": "https://"},
    ],
)
def test_what_could_not_work_or_would_show_a_secret_refuses_the_start(settings: dict[str, str]) -> None:
    with pytest.raises(ValidationError) as refusal:
        Settings.model_validate(settings)
    assert HIDDEN not in str(refusal.value)


@pytest.mark.parametrize(
    ("key", "is_live"), [("sk_live_a", True), ("rk_live_a", True), ("sk_test_live_a", False), ("rk_test_a", False)]
)
def test_the_mode_is_that_of_the_key(key: str, *, is_live: bool) -> None:
    settings = Settings.model_validate({"stripe_secret_key": key, "stripe_webhook_secret": "whsec_a, whsec_b"})
    assert settings.stripe_is_live is is_live
    assert settings.stripe_webhook_secrets == ("whsec_a", "whsec_b")


@pytest.mark.parametrize("url", ["https://stripe.example.com:8443", "http://127.0.0.1:1234/", "http://[::1]:80"])
def test_a_key_is_sent_by_tls_or_on_loopback(url: str) -> None:
    assert Settings(stripe_api_url=url).stripe_api_url == url.rstrip("/")
