"""Asynchronous generations, called jobs: requests that wait in the ledger until a worker draws them.

A job is all images of one request. Accepting it writes its rows with the status `queued`; a worker takes it (`take`),
marks it as sent before a provider is asked, renews its lease while it draws, and settles it. What a worker leaves
behind, the ledger's sweep decides about. The statements and their locks are the ledger's.
"""
