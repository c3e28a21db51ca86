-- Frees these idempotency keys where their day is over and their generation has ended.
with claimed as materialized (
  select c.scope, g.key_id from claims c left join generations g on g.id = c.generation_id where c.scope = any(:scope)
), keys as materialized (
  select k.id from api_keys k where k.id = any(array(select key_id from claimed)) order by k.id for no key update
), due as materialized (
  select scope from claims where scope = any(:scope) and created_at < now() - interval '24 hours'
    and (select count(*) from keys) >= 0
  order by scope for update
)
delete from claims c using due d where c.scope = d.scope and not exists (
  select from generations g where g.id = c.generation_id and g.status in ('queued', 'processing')
)
