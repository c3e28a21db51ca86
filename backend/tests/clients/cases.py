"""All clients, and each call of each."""

from tests.clients import calls, edit_calls, google_calls

CLIENTS = [*calls.CLIENTS, *edit_calls.CLIENTS, *google_calls.CLIENTS]
CASES = [(client, call) for client in CLIENTS for call in client.calls]
