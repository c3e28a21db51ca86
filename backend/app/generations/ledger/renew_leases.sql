-- Gives workers more time for these requests, where they still have them. The ids of the images that they have no more;
-- those that they have settled themselves are not among them.
-- It waits for no lock: a request of which another transaction holds an image is renewed the next time, or it is over.
-- So all images of a request have the same `lease_until`.
with free as materialized (
  select g.id from generations g where g.id = any(:id) order by g.id for no key update skip locked
), whole as (
  select i.lease from unnest(:id::text[], :lease::uuid[]) as i(id, lease) left join free on free.id = i.id
  group by i.lease having count(*) = count(free.id)
), renewed as (
  update generations g set lease_until = now() + make_interval(secs => :lease_seconds)
  from unnest(:id::text[], :lease::uuid[]) as i(id, lease) join whole on whole.lease = i.lease
  where g.id = i.id and g.status = 'processing' and g.lease = i.lease returning g.id
)
select i.id from unnest(:id::text[], :lease::uuid[]) as i(id, lease) left join generations g on g.id = i.id
where not coalesce(g.lease = i.lease and (g.status in ('processing', 'delivered')
  or g.status = 'failed' and g.error <> 'attempts_exhausted'), false)
