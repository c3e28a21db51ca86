-- What became of requests that were not to be settled any more.
select g.status from unnest(:id::text[]) with ordinality as i(id, n) left join generations g using (id) order by n
