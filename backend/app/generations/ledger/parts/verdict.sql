-- The columns of a verdict on a request `i` with a price. A key whose account's balance was skipped counts as skipped. A
-- request is refused against what was really written, and not against the sum by which it was judged.
case when k.active and r.is_skipped then null else k.active end as active, k.revision = i.revision as current,
  w.created_at,
  case when w.id is null and not j.fits and not r.is_skipped then coalesce({refusal}, 'again') end as refusal,
  r.credit as left_credit, least(r.account_cap, r.key_cap) as left_cap, r.account_ends_at, r.key_ends_at
