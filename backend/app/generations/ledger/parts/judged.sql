-- Which of the `candidates` fit, one row for each: all its images or none. They are judged in order, by a sum of those
-- before them that would fit if they were alone.
asked as materialized (
  select q.*, r.account_id, least(r.credit, r.account_cap) as account_room, r.key_cap as key_room,
    not r.is_skipped and coalesce(q.amount <= least(r.credit, r.account_cap, r.key_cap), true) as fits_alone
  from candidates q join rooms r on r.key_id = q.key_id
), judged as materialized (
  select *, fits_alone
    and coalesce(sum(amount) filter (where fits_alone) over account_order <= account_room, true)
    and coalesce(sum(amount) filter (where fits_alone) over key_order <= key_room, true) as fits
  from asked
  window account_order as (partition by account_id order by n), key_order as (partition by key_id order by n)
)
