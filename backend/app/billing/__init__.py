"""Money: what an account may spend, what it has paid, and what it was charged.

Amounts are integers, in millionths of the deployment's currency. The ledger holds and charges them, in its own
statements and under the same locks; this package makes everything else that changes a balance.
"""
