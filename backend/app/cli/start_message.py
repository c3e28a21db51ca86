"""What `nanobanana serve` prints at its start."""

from app.core.settings import Settings


def start_message(settings: Settings) -> str:
    """The text that `serve` prints: the URL, and commands that lead a newcomer to a first image."""
    url = settings.public_url
    return f"""
  NanoBanana is at {url}   open it in a browser: your first image is a minute away
  (API reference: {url}/docs, stop: Ctrl-C)
  {_CHARGED if settings.charges else _NOT_CHARGED}

  {_first_steps(url) if settings.registration == "open" else _NO_SIGN_UP}
"""


_CHARGED = "Billing is on: images of live keys are charged."
_NOT_CHARGED = "Billing is off: nothing is charged."
_NO_SIGN_UP = "Sign-up is not open: nanobanana accounts create you@example.com makes an account."


def _first_steps(url: str) -> str:
    as_json = "-H 'Content-Type: application/json'"
    account = """-d '{"email":"you@example.com","password":"a long password"}'"""
    log_in = f"curl -s {url}/v1/auth/login {as_json} {account} {_cut_field('access_token')}"
    create_key = f"""curl -s {url}/v1/keys -H "Authorization: Bearer $({log_in})" {as_json} -d '{{"name":"first"}}'"""
    return f"""Or in three lines for another terminal:

curl -s {url}/v1/auth/register {as_json} {account}
KEY=$({create_key} {_cut_field("key")})
curl -s {url}/v1/generate -H "Authorization: Bearer $KEY" {as_json} -d '{{"prompt":"A cute banana"}}'

  The "url" of the last answer is the image."""


def _cut_field(field: str) -> str:
    return f"""| sed 's/.*"{field}":"\\([^"]*\\)".*/\\1/'"""
