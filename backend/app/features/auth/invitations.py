"""Invitations: links that an operator gives out, each good for a number of sign-ups and for a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import ApiError
from app.core.security import hash_session_token, new_session_token, new_timed_id
from app.models import Invitation


class RegistrationClosed(ApiError):
    status, title, code = 403, "Forbidden", "registration_closed"
    detail = "Sign-up is closed here; the operator makes accounts"


class InvitationRequired(RegistrationClosed):
    code, detail = "invitation_required", "Sign-up needs an invitation here: open the link that you were given"


class InvitationInvalid(RegistrationClosed):
    code, detail = "invitation_invalid", "There is no such invitation; check that the link is complete"


@dataclass(frozen=True)
class CreatedInvitation:
    """A new invitation with its token, which is not stored."""

    id: str
    token: str
    expires_at: datetime


async def create(session: AsyncSession, *, email: str | None, lifetime: timedelta, uses: int) -> CreatedInvitation:
    """A new invitation, for this canonical email alone where one is given. Its id begins with the database's time."""
    token = new_session_token()
    now = (await session.execute(select(func.now()))).scalar_one()
    invitation = Invitation(
        id=new_timed_id("inv", now=now.timestamp()),
        token_hash=hash_session_token(token),
        email=email,
        uses_max=uses,
        expires_at=func.now() + lifetime,
    )
    session.add(invitation)
    await session.flush()
    await session.refresh(invitation)
    return CreatedInvitation(invitation.id, token, invitation.expires_at)


async def find_page(session: AsyncSession, *, after: str, limit: int) -> Sequence[Invitation]:
    """At most `limit` invitations whose ids follow `after`, oldest first; those that are over too."""
    statement = select(Invitation).where(Invitation.id > after).order_by(Invitation.id).limit(limit)
    return (await session.scalars(statement)).all()


async def revoke(session: AsyncSession, *, invitation_id: str) -> bool:
    """Ends the invitation for whoever has its link; False where there is none with this id that is not revoked."""
    unrevoked = Invitation.id == invitation_id, Invitation.revoked_at.is_(None)
    statement = update(Invitation).where(*unrevoked).values(revoked_at=func.now()).returning(Invitation.id)
    return await session.scalar(statement) is not None


async def check(session: AsyncSession, *, token: str | None, email: str) -> None:
    """Raises InvitationRequired without a token, and InvitationInvalid, with the reason, for one that does not let this
    canonical email sign up now by the database's clock. Neither says anything of the accounts that there are.
    """
    await _find_usable(session, token=token, email=email, for_update=False)


async def use(session: AsyncSession, *, token: str | None, email: str) -> None:
    """Takes one of the invitation's uses, which the transaction gives back if it fails. The row is locked while they
    are compared, so that parallel sign-ups cannot exceed them. Raises what `check` raises.
    """
    (await _find_usable(session, token=token, email=email, for_update=True)).uses += 1


async def _find_usable(session: AsyncSession, *, token: str | None, email: str, for_update: bool) -> Invitation:
    if not token:
        raise InvitationRequired
    is_over = Invitation.expires_at <= func.clock_timestamp()
    statement = select(Invitation, is_over).where(Invitation.token_hash == hash_session_token(token))
    if for_update:
        statement = statement.with_for_update(key_share=True)
    found = (await session.execute(statement)).one_or_none()
    if found is None:
        raise InvitationInvalid
    invitation, has_expired = found
    if invitation.email not in {None, email}:
        raise InvitationInvalid("This invitation is for another email address")
    if invitation.revoked_at is not None:
        raise InvitationInvalid("This invitation was revoked; ask the operator for another")
    if has_expired:
        raise InvitationInvalid("This invitation has expired; ask the operator for another")
    if invitation.uses >= invitation.uses_max:
        raise InvitationInvalid("This invitation was used already; ask the operator for another")
    return invitation
