-- Deletes idempotency keys that are older than a day and whose generation has ended, some at a time. Rows that another
-- writer has locked are left to it.
delete from claims where scope in (
  select scope from claims c where created_at < now() - interval '24 hours' and not exists (
    select from generations g where g.id = c.generation_id and g.status in ('queued', 'processing')
  )
  order by created_at limit 1000 for update skip locked
)
