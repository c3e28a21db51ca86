-- What the account of the balance `b` has spent in that period.
case when {period} > b.period then 0 else b.spent end
