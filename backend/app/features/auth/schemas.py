"""The wire types of accounts."""

from typing import Annotated, Literal

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, Field

from app.core.schemas import Answer, Body, Text, Time

EMAIL_LENGTH_MAX = 254
PASSWORD_BYTES_MAX = 1024


def _canonical(email: str) -> str:
    """The email in lower case with its domain as IDNA: one spelling for each account. No DNS name is looked up."""
    try:
        # test_environment only allows domains that end in .test.
        parsed = validate_email(
            email, strict=True, check_deliverability=False, allow_smtputf8=False, test_environment=True
        )
    except EmailNotValidError:
        parsed = None
    canonical = (parsed.ascii_email or "").lower() if parsed else ""
    if not canonical or len(canonical) > EMAIL_LENGTH_MAX:
        raise ValueError("must be an email address such as ada@example.com")
    return canonical


def _within_bytes(password: str) -> str:
    if not 1 <= len(password.encode()) <= PASSWORD_BYTES_MAX:
        raise ValueError(f"must be 1 to {PASSWORD_BYTES_MAX} bytes long")
    return password


Email = Annotated[Text, Field(examples=["ada@example.com"]), AfterValidator(_canonical)]
Password = Annotated[Text, Field(examples=["correct horse battery staple"], repr=False), AfterValidator(_within_bytes)]


class Credentials(Body):
    """An email address, in any letter case, and a password, taken exactly as it is."""

    email: Email
    password: Password


class SignUp(Credentials):
    """Credentials of a new account, and the invitation where the operator asks for one."""

    invitation: Text | None = Field(
        default=None,
        repr=False,
        description="What the link of an invitation ends with. Not looked at where anybody may sign up.",
    )


class PasswordChange(Body):
    """The account's password, and the one that it is to have from now on. Both are taken exactly as they are."""

    current_password: Password
    new_password: Annotated[Password, Field(examples=["a banana is a berry, a strawberry is not"])]


class AccountPublic(Answer):
    """An account as its owner sees it."""

    id: str = Field(examples=["usr_28fm63cjp43w44255s68"])
    email: str = Field(examples=["ada@example.com"])
    created_at: Time


class LoginToken(Answer):
    """A token for the account's own pages of the API. It is no API key."""

    access_token: str
    token_type: Literal["bearer"] = Field(default="bearer")
    expires_in: int = Field(description="Seconds from now.", examples=[3600])
