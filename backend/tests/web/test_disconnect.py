"""Work that is cancelled when its client hangs up, and only then."""

import asyncio

import pytest
from app.web.disconnect import cancelled_on_disconnect
from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import Message

BODY: Message = {"type": "http.request", "body": b"", "more_body": False}
DISCONNECT: Message = {"type": "http.disconnect"}


class Client:
    """A client as a server presents it: by its messages."""

    def __init__(self, *sent: Message) -> None:
        self.messages = asyncio.Queue[Message]()
        for message in sent:
            self.messages.put_nowait(message)
        self.request = Request({"type": "http"}, self.messages.get)

    def hang_up(self) -> None:
        self.messages.put_nowait(DISCONNECT)


async def _work(client: Client, work: asyncio.Future[str]) -> str:
    async with cancelled_on_disconnect(client.request):
        return await work


async def _begun(client: Client) -> tuple[asyncio.Task[str], asyncio.Future[str]]:
    work = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(_work(client, work))
    await _settle()
    return task, work


async def _settle() -> None:
    # Nothing here waits for anything but the loop's next turn: a few are enough for all that was sent to be received.
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("sent", [[], [BODY], [{**BODY, "more_body": True}, BODY]])
async def test_work_ends_with_its_result_while_the_client_stays(sent: list[Message]) -> None:
    task, work = await _begun(Client(*sent))
    work.set_result("done")
    assert await task == "done"


@pytest.mark.parametrize("sent", [[], [BODY]])
async def test_work_is_cancelled_when_the_client_hangs_up(sent: list[Message]) -> None:
    client = Client(*sent)
    task, work = await _begun(client)
    client.hang_up()
    with pytest.raises(ClientDisconnect):
        await task
    assert work.cancelled()


async def test_a_client_that_hangs_up_afterwards_leaves_its_message_to_the_next_receiver() -> None:
    client = Client(BODY)
    task, work = await _begun(client)
    work.set_result("done")
    await task
    client.hang_up()
    assert await client.request.receive() == DISCONNECT


@pytest.mark.parametrize("error", [TimeoutError(), ZeroDivisionError()])
async def test_an_error_of_the_work_is_its_own(error: Exception) -> None:
    task, work = await _begun(Client())
    work.set_exception(error)
    with pytest.raises(type(error)) as raised:
        await task
    assert raised.value is error


async def test_a_request_that_is_cancelled_is_not_taken_for_one_whose_client_left() -> None:
    task, work = await _begun(Client())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.cancelled()


async def test_a_body_that_cannot_be_received_ends_the_watch_and_not_the_work() -> None:
    async def refuse() -> Message:
        raise ConnectionResetError

    client = Client()
    client.request = Request({"type": "http"}, refuse)
    task, work = await _begun(client)
    work.set_result("done")
    assert await task == "done"
