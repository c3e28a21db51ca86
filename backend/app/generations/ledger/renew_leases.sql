-- Gives workers more time for these images, where they still have them. The ids of those they have no more. What another
-- transaction decides about now is passed over: it is renewed the next time, or it is over.
with free as materialized (
  select g.id from generations g where g.id = any(:id) order by g.id for no key update skip locked
), renewed as (
  update generations g set lease_until = now() + make_interval(secs => :lease_seconds)
  from unnest(:id::text[], :lease::uuid[]) as i(id, lease) join free on free.id = i.id
  where g.id = i.id and g.status = 'processing' and g.lease = i.lease returning g.id
)
select i.id from unnest(:id::text[], :lease::uuid[]) as i(id, lease) left join generations g on g.id = i.id
where not coalesce(g.status = 'processing' and g.lease = i.lease, false)
