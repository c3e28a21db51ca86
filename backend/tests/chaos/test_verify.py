"""The verifier itself: every promise that it watches over is broken once, and it says so."""

import pytest
from tests.chaos.ground import Ground
from tests.chaos.load import Call, Line
from tests.chaos.verify import excesses, violations

_TWIN = """
    insert into generations (id, key_id, prompt, size, provider, status, delivered_at)
    select id || '2', key_id, prompt, size, provider, status, delivered_at from generations where key_id = $1
"""


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("delete from generations where key_id = $1", "an acknowledged row is lost"),
        (_TWIN, "2 rows for one call"),
        ("update usage set pictures = pictures + 1 where key_id = $1", "usage 2, ledger 1"),
        ("update usage set list_amount = list_amount - 1 where key_id = $1", "is 1 9999 0, its rows 1 10000 0"),
        ("update usage set cost = 1 where key_id = $1", "is 1 10000 1, its rows 1 10000 0"),
        ("update usage set model = 'another' where key_id = $1", "usage of another"),
        ("update generations set list_price = 0 where key_id = $1", "has not the price or the cost of its model"),
        ("update generations set prompt = 'another' where key_id = $1", "a row that nobody asked for"),
        ("update api_keys set last_used_at = created_at - interval '1 day' where id = $1", "is not the last use"),
        ("update api_keys set revoked_at = created_at where id = $1", "younger than the revocation"),
    ],
    ids=["lost", "twice", "miscounted", "amount", "cost", "model", "price", "foreign", "unused", "revoked"],
)
async def test_a_broken_promise_is_found(ground: Ground, journal: list[Call], damage: str, said: str) -> None:
    [key] = await ground.keys(1)
    line = Line(ground.fleet.port, journal)
    await line.ask(key, "a picture")
    line.close()
    assert await violations(ground.cluster, journal) == []
    connection = await ground.cluster.connect()
    await connection.execute(damage, key.id)
    await connection.close()
    assert said in "; ".join(await violations(ground.cluster, journal))


def test_a_span_of_time_in_which_too_many_passed_is_found() -> None:
    evenly = [Call("key", f"{n}", "ok", sent=n, received=n + 0.5) for n in range(10)]
    assert excesses(evenly, burst=1, per_second=1) == []
    one_more = Call("key", "one more", "ok", sent=4.1, received=4.4)
    assert "2 passed in 0.500 s" in excesses([*evenly, one_more], burst=1, per_second=1)
