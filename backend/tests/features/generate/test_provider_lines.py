"""Each failure of a provider is a line that names route, provider, model, account, request and its status."""

from io import StringIO

from tests.conftest import Start
from tests.core.test_logs import about
from tests.features.generate.painted import painted
from tests.harness import generate
from tests.standins.wire import Reply

FAILURES = (
    (Reply(status=400), "request", 400),
    (Reply(status=403), "unusable", 403),
    (Reply(status=500), "failed", 500),
    (Reply(is_reset=True), "failed", None),
    (Reply(b"<html>", headers={"Content-Type": "text/html"}), "unreadable", 200),
)


async def test_the_line_of_a_failed_try_says_where_for_which_account_and_with_which_status(
    start: Start, log: StringIO
) -> None:
    async with painted(start) as asked:
        where = {"route": "nano-banana", "provider": "gemini", "account": asked.account.account_id}
        for reply, failure, status in FAILURES:
            asked.provider.faults.append(reply)
            answer = await generate(asked.client, asked.key)
            assert answer.status_code >= 500
            lines = [line for line in about(log, answer) if line["event"].startswith("provider_")]
            failed = lines[-1]
            expected = {"event": "provider_failed", "failure": failure, "status": status, **where}
            assert failed.items() >= expected.items(), failed
            assert failed["model"]
            assert all(line.items() >= where.items() for line in lines), "whatever else is said of the try"
