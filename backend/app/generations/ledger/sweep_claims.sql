-- The same for those that no request asks for again, some at a time; what another writer has in hand is left to it.
delete from claims where scope in (
  select scope from claims c where created_at < now() - interval '24 hours' and not exists (
    select from generations g where g.id = c.generation_id and g.status in ('queued', 'processing')
  )
  order by created_at limit 1000 for update skip locked
)
