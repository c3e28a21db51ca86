"""The pages of the console, with one module for each."""

from app.console.pages import (
    account,
    account_cap,
    billing,
    billing_month,
    buying,
    delete_image,
    history,
    job,
    key_cap,
    keys,
    landing,
    log_in,
    log_out,
    models,
    playground,
    revoke_key,
    sign_up,
    usage,
)
from app.console.rendering import Page

_IN_ORDER = (
    *(landing, sign_up, log_in, log_out, playground, job, keys, key_cap, revoke_key, models, usage, history),
    delete_image,
    *(billing, account_cap, buying, billing_month, account),
)

PAGES: tuple[Page, ...] = tuple(module.page for module in _IN_ORDER)
"""In the order of the navigation. Its first page is the console's home."""

ROUTERS = (*(page.router for page in PAGES), landing.files)
