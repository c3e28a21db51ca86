"""What a job comes to once a worker has taken it: by the catalogue as it is now, with the images that it names."""

from app.catalogue.model import ModelNotFound
from app.catalogue.routing import Plan
from app.core.db import DATABASE_ERRORS
from app.core.errors import Invalid, UnsupportedParameter, as_api_error
from app.generations.collaborators import Generations
from app.generations.errors import InputGone, ModelChanged
from app.generations.inputs import NO_INPUTS, Inputs, resolve
from app.generations.jobs.job import Job
from app.generations.rehearsal import rehearsed
from app.generations.service import draw_request
from app.generations.spec import Caller
from app.providers import DrawRequest


async def plan_job(generations: Generations, job: Job, deadline: float) -> tuple[Plan, DrawRequest]:
    """What is to be drawn, by which routes; its images are read before `deadline` (of the event loop's clock).

    Raises ModelNotFound, ModelChanged and InputGone, after which no attempt draws it, and Unavailable where its images
    cannot be read now.
    """
    plan = _plan(generations, job)
    inputs = await _inputs(generations, job, deadline)
    return plan, draw_request(job.spec, plan, None, inputs)


def _plan(generations: Generations, job: Job) -> Plan:
    spec = job.spec
    try:
        plan = generations.catalogue.plan(
            *(spec.model, spec.size, spec.quality, spec.background, job.environment),
            references=len(spec.images),
            has_mask=spec.mask is not None,
        )
    except (Invalid, UnsupportedParameter):
        raise ModelChanged from None  # the refusal is about fields of a request that nobody is sending now
    if job.model not in {plan.model.name, *plan.model.aliases}:
        # Its name is one that the catalogue takes for the default model's where no model has it.
        raise ModelNotFound(list(generations.catalogue.catalogue.models))
    if job.environment == "test":
        plan = rehearsed(generations, plan, spec.prompt)
    return plan.in_turn(job.options.get("scope", job.id))


async def _inputs(generations: Generations, job: Job, deadline: float) -> Inputs:
    if not job.spec.images:
        return NO_INPUTS
    caller = Caller(job.key_id, job.account_id, job.environment, 0)
    try:
        return await resolve(generations, caller=caller, spec=job.spec, deadline=deadline)
    except Invalid:
        raise InputGone from None
    except DATABASE_ERRORS as error:
        raise as_api_error(error) from error
