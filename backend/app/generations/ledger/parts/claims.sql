-- A claim names the delivered images; where none was delivered it is free again.
ended as materialized (
  select request_id, scope, array_agg(id order by n) filter (where delivered_at is not null) as delivered_ids
  from settled where scope is not null group by 1, 2
), kept as (
  update claims c set lease_until = null, generation_id = e.delivered_ids[1], other_ids = nullif(e.delivered_ids[2:], '{}')
  from ended e where c.scope = e.scope and c.generation_id = e.request_id and e.delivered_ids is not null
), freed as (
  delete from claims c using ended e
  where c.scope = e.scope and c.generation_id = e.request_id and e.delivered_ids is null
)
