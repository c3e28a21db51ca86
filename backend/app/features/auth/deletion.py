"""The end of an account: what names its owner is gone, and its numbers stay."""

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.features.auth.administration import mark_active, user_named
from app.generations.erase import LEASE
from app.generations.jobs.cancel import cancel_queued
from app.models import ApiKey, BrowserSession, Erasure, Invitation, User


async def delete_account(session: AsyncSession, *, owner: str) -> str | None:
    """Deletes the user that `user_named` finds, with its email, password, sessions and invitations; revokes the
    account's keys, erases their names, prefixes and hashes, and cancels what waits under them; and leaves an erasure
    for its prompts and images. The account's id, or None if there is no such user.

    Once this has committed no generation is recorded for the account: whatever it leaves is there for `erase` to find.
    The rows are locked in the order of all. The user's lock lets keys refer to the user until the account is locked: a
    transaction that makes a key has locked the account before, and neither waits for the other then.
    """
    email = select(User.email).where(user_named(owner)).scalar_subquery()
    await session.execute(delete(Invitation).where(Invitation.email == email))
    user = await mark_active(session, owner=owner, active=False)
    if user is None:
        return None
    account_id = user.account_id
    of_account = ApiKey.account_id == account_id
    keys = await session.scalars(select(ApiKey.id).where(of_account).order_by(ApiKey.id).with_for_update())
    await cancel_queued(session, key_ids=keys.all(), error="account_disabled")
    await session.execute(update(ApiKey).where(of_account).values(_ERASED_KEY))
    await session.execute(delete(BrowserSession).where(BrowserSession.user_id == user.id))
    await session.execute(delete(User).where(User.id == user.id))
    session.add(Erasure(account_id=account_id, lease_until=func.now() + LEASE))
    return account_id


_ERASED_KEY = {
    "user_id": None,
    "name": "",
    "prefix": "",
    # No key has this hash, since no key looks like an id.
    "key_hash": func.sha256(func.convert_to(ApiKey.id, text("'UTF8'"))),
    "revoked_at": func.coalesce(ApiKey.revoked_at, func.clock_timestamp()),
}
