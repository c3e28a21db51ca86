"""Who hands jobs over, and asks what became of them."""

from dataclasses import dataclass

from app.core.errors import Unavailable
from app.generations.collaborators import Generations
from app.generations.jobs.accept import accept_job
from app.generations.jobs.cancel import cancel
from app.generations.jobs.job import JobTerms
from app.generations.spec import Caller, GenerationSpec
from sqlalchemy.exc import SQLAlchemyError
from tests.harness import Account, Key


@dataclass
class Acceptor:
    generations: Generations

    async def accept(
        self,
        account: Account,
        key: Key,
        prompt: str,
        *,
        model: str | None = None,
        images: int = 1,
        idempotency_key: str | None = None,
        terms: JobTerms = JobTerms(),
    ) -> str:
        """The id of a job."""
        try:
            accepted = await accept_job(
                self.generations,
                caller=Caller(key.id, account.account_id, "live", 0),
                spec=GenerationSpec(prompt, "1024x1024", count=images, model=model),
                route="/v1/generate",
                terms=terms,
                idempotency_key=idempotency_key,
            )
        except (SQLAlchemyError, OSError):
            raise Unavailable from None
        return accepted.id

    async def cancel(self, request_id: str) -> None:
        await cancel(self.generations, request_id=request_id)
