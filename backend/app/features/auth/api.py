"""Accounts over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends

from app.core.errors import RateLimited
from app.features.auth import service
from app.features.auth.dependencies import (
    CurrentAccounts,
    CurrentUser,
    GuardedCredentials,
    GuardedUser,
    NewCredentials,
    limit_logins,
    limit_sign_ups,
)
from app.features.auth.invitations import InvitationInvalid, InvitationRequired, RegistrationClosed
from app.features.auth.schemas import AccountPublic, LoginToken, PasswordChange
from app.features.dependencies import Session
from app.web.body import json_body
from app.web.openapi import BODY_PROBLEMS, problems

router = APIRouter(prefix="/v1/auth", tags=["Accounts"])


@router.post(
    "/register",
    status_code=201,
    dependencies=[Depends(limit_sign_ups)],
    responses=problems(
        RegistrationClosed,
        InvitationRequired,
        InvitationInvalid,
        service.EmailAlreadyRegistered,
        RateLimited,
        *BODY_PROBLEMS,
    ),
)
async def register(accounts: CurrentAccounts, new: NewCredentials) -> AccountPublic:
    """Create an account.

    The email is compared in lower case; the password is at least 8 bytes, or as many as the operator asks for, and at
    most 1,024, taken exactly as it is sent. The operator may have closed sign-up, or ask for an invitation.
    """
    return AccountPublic.model_validate(
        await service.register(accounts, email=new.email, password=new.password, invitation=new.invitation)
    )


@router.post(
    "/login",
    dependencies=[Depends(limit_logins, scope="function")],
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


@router.post("/password", responses=problems(service.InvalidToken, RateLimited, service.WrongPassword, *BODY_PROBLEMS))
async def change_password(
    accounts: CurrentAccounts, user: GuardedUser, change: Annotated[PasswordChange, json_body(PasswordChange)]
) -> LoginToken:
    """Change the account's password, and go on with the login token of this answer.

    Every other login token and every session in a browser is refused from then on. API keys go on working.
    """
    return LoginToken.model_validate(
        await service.change_password(
            accounts, user=user, current_password=change.current_password, new_password=change.new_password
        )
    )


@router.post("/logout-all", status_code=204, responses=problems(service.InvalidToken))
async def log_out_everywhere(user: CurrentUser, session: Session) -> None:
    """End every login of the account: all login tokens, this one too, and all sessions in browsers.

    API keys go on working.
    """
    await service.end_all_sessions(session, user_id=user.id)
