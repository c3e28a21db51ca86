case when {key_period} > k.period then 0 else k.spent end
