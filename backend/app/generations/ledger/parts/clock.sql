-- The time at which everything is locked, and not at which the statement began to wait. What closes an hour has the
-- balance locked: a settlement that waits for it is of a later time.
clock as materialized (
  select clock_timestamp() as at where (select count(*) from payers) > 0
)
