-- The `rooms`, less what was really written.
remaining as materialized (
  select r.key_id, r.is_skipped, r.credit - coalesce(a.amount, 0) as credit,
    r.account_cap - coalesce(a.amount, 0) as account_cap, r.key_cap - coalesce(t.amount, 0) as key_cap,
    r.account_ends_at, r.key_ends_at
  from rooms r left join of_account a on a.account_id = r.account_id left join taken t on t.key_id = r.key_id
)
