-- When the period of the balance `b` began in which `c.at` lies.
date_trunc('month', c.at - b.anchor, 'UTC') + b.anchor
