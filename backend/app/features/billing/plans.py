"""What can be bought, over HTTP."""

from fastapi import APIRouter

from app.features.billing.plan_schemas import PlanList
from app.features.dependencies import CurrentGenerations
from app.web.openapi import problems

router = APIRouter(prefix="/v1", tags=["Billing"])


@router.get("/plans", responses=problems())
async def list_plans(generations: CurrentGenerations) -> PlanList:
    """List the plans and top-ups of this deployment. It needs no key."""
    catalogue = generations.catalogue.catalogue
    return PlanList.of(catalogue.plans, catalogue.top_ups, currency=catalogue.currency)
