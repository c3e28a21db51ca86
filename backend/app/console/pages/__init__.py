"""The pages, one module for each group of them."""

from app.console.pages import account, history, keys, landing, playground, sign_in, usage

ROUTERS = tuple(module.router for module in (landing, sign_in, keys, usage, playground, history, account))
