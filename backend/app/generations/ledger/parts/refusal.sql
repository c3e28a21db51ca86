-- Why the amount `j.amount` does not fit into the rooms `r`; null where it does. Of two caps it is the one that ends last.
case when j.amount > r.credit then 'insufficient_credit'
  when j.amount > r.key_cap and not coalesce(j.amount > r.account_cap and r.key_ends_at < r.account_ends_at, false)
    then 'key_cap'
  when j.amount > r.account_cap then 'account_cap' end
