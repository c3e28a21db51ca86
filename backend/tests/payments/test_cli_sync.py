"""`nanobanana billing sync` on the stand-in, by the plans of a file."""

import asyncio
from pathlib import Path

import pytest
from tests.standins.stripe import serving_stripe
from tests.test_cli import nanobanana_in_here

MODELS = """
currency = "USD"
[[models.nano-banana.routes]]
provider = "stub"
[plans.free]
[plans.starter]
title = "Starter"
price = "10"
[plans.partner]
price = "99"
stripe_price = "price_1Own"
"""


async def test_it_makes_what_is_sold_once_and_prints_a_secret_once(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text(MODELS)
    async with serving_stripe() as standin:
        settings = {
            "MODELS_FILE": str(tmp_path / "models.toml"),
            "STRIPE_SECRET_KEY": standin.key,
            "STRIPE_API_URL": standin.url,
            "PUBLIC_URL": "https://here.example",
        }

        async def run(*arguments: str, **changes: str) -> tuple[int, list[str]]:
            given = settings | changes
            done = await asyncio.to_thread(nanobanana_in_here, tmp_path, "billing", "sync", *arguments, **given)
            assert standin.key not in done.stdout + done.stderr
            return done.returncode, (done.stdout + done.stderr).splitlines()

        status, would = await run("--check")
        assert (status, len(would)) == (1, 7)
        assert not standin.objects
        status, made = await run()
        *lines, secret = made
        assert (status, lines) == (0, [line.replace("Would create", "Created") for line in would])
        [endpoint] = standin.of("webhook_endpoint")
        assert secret.endswith(f"STRIPE_WEBHOOK_SECRET={standin.secrets[endpoint['id']]}")
        assert endpoint["url"].startswith("https://here.example/v1/billing/")
        assert {each["lookup_key"] for each in standin.of("price")} == {"nanobanana_plan_starter", "nanobanana_overage"}
        for arguments in ([], ["--check"]):
            assert await run(*arguments) == (0, ["Nothing differs."])
        assert await run(PUBLIC_URL="") == (
            0,
            ["Nothing differs.", "PUBLIC_URL is no https URL: Stripe cannot send events to it."],
        )
        standin.troubles.extend([("GET", "refuse")] * 2)
        assert await run() == (1, ["nanobanana: Stripe cannot be reached: run the command again, and it goes on."])
        status, [refused] = await run(STRIPE_SECRET_KEY="sk_test_other")
        assert (status, refused[:48]) == (1, "nanobanana: Stripe refused a call with status 40")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"MODELS_FILE": ""}, "MODELS_FILE names no currency: write one to it."),
        ({"STRIPE_SECRET_KEY": ""}, "STRIPE_SECRET_KEY is not set."),
    ],
)
def test_what_it_needs_is_named(tmp_path: Path, changes: dict[str, str], sentence: str) -> None:
    (tmp_path / "models.toml").write_text(MODELS)
    settings = {"MODELS_FILE": str(tmp_path / "models.toml"), "STRIPE_SECRET_KEY": "sk_test_a"} | changes
    done = nanobanana_in_here(tmp_path, "billing", "sync", **settings)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"nanobanana: {sentence}\n")
