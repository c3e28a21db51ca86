-- What became of requests that were not to be settled any more, where it was under this lease.
select g.status from unnest(:id::text[], :lease::uuid[]) with ordinality as i(id, lease, n)
left join generations g on g.id = i.id and g.lease = i.lease order by n
