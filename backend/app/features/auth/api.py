"""Accounts over HTTP."""

from fastapi import APIRouter, Depends

from app.core.errors import RateLimited
from app.core.web.openapi import BODY_PROBLEMS, problems
from app.features.auth import service
from app.features.auth.dependencies import (
    CurrentAccounts,
    CurrentUser,
    GuardedCredentials,
    NewCredentials,
    limit_logins,
    limit_sign_ups,
)
from app.features.auth.schemas import AccountPublic, LoginToken

router = APIRouter(prefix="/v1/auth", tags=["Accounts"])


@router.post(
    "/register",
    status_code=201,
    dependencies=[Depends(limit_sign_ups)],
    responses=problems(service.EmailAlreadyRegistered, RateLimited, *BODY_PROBLEMS),
)
async def register(accounts: CurrentAccounts, new: NewCredentials) -> AccountPublic:
    """Create an account.

    The email is compared in lower case; the password is 8 to 1,024 bytes, taken exactly as it is sent.
    """
    return AccountPublic.model_validate(await service.register(accounts, email=new.email, password=new.password))


@router.post(
    "/login",
    dependencies=[Depends(limit_logins)],
    responses=problems(service.InvalidCredentials, RateLimited, *BODY_PROBLEMS),
)
async def log_in(accounts: CurrentAccounts, credentials: GuardedCredentials) -> LoginToken:
    """Exchange an email and a password for a login token, which manages keys and is no API key itself."""
    return LoginToken.model_validate(
        await service.log_in(accounts, email=credentials.email, password=credentials.password)
    )


@router.get("/me", responses=problems(service.InvalidToken))
async def get_account(user: CurrentUser) -> AccountPublic:
    """Show the account of the login token."""
    return AccountPublic.model_validate(user)
