"""Connections: the idle give way, the busy stay, the slow are sent away."""

import asyncio

from ocean_core.ingress.http_protocol import plain_address
from ocean_core.model.access import LISTENER_KEY, ListenerInfo
from support.listening import REFUSAL, REQUEST, Rig, ask, hang_up, run


def test_silent_connections_cannot_keep_a_working_one_out() -> None:
    async def scenario(rig: Rig) -> None:
        working = await rig.connect()
        assert await ask(working) == b"200"
        silent = []
        for _ in range(6):
            rig.clock.advance(1)
            assert await ask(working) == b"200"
            silent.append(await rig.connect())
        assert await ask(working) == b"200"
        # Of the silent ones the oldest had to go.
        assert await silent[0][0].read() == b""
        await hang_up(working, *silent)

    run(scenario, connections_max=3)


def test_when_all_are_busy_the_new_one_is_refused_with_a_reason() -> None:
    async def scenario(rig: Rig) -> None:
        rig.open_gate.clear()
        busy = await rig.connect()
        busy[1].write(REQUEST)
        await rig.all_busy(1)
        late = await rig.connect()
        assert await late[0].read() == REFUSAL
        rig.open_gate.set()
        assert (await busy[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        await hang_up(busy, late)

    run(scenario, connections_max=1)


def test_one_that_never_asks_is_closed_and_one_that_asks_too_slowly_gets_408() -> None:
    async def scenario(rig: Rig) -> None:
        silent, slow = await rig.connect(), await rig.connect()
        slow[1].write(REQUEST[:10])
        assert await silent[0].read() == b""
        assert (await slow[0].read()).startswith(b"HTTP/1.1 408 ")
        await hang_up(silent, slow)

    run(scenario)


def test_a_header_in_pieces_is_fine_if_it_comes_in_time() -> None:
    async def scenario(rig: Rig) -> None:
        reader, writer = await rig.connect()
        for i in range(len(REQUEST)):
            writer.write(REQUEST[i : i + 1])
            await writer.drain()
            await asyncio.sleep(0)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        await hang_up((reader, writer))

    run(scenario)


def test_a_request_tells_where_it_came_in() -> None:
    async def scenario(rig: Rig) -> None:
        local, network = await rig.connect(0), await rig.connect(1)
        assert await ask(local) == await ask(network) == b"200"
        assert [scope[LISTENER_KEY] for scope in rig.scopes] == [
            ListenerInfo("local", trusted=True),
            # The network listener is not trusted, at whatever address it is.
            ListenerInfo("network", trusted=False),
        ]
        await hang_up(local, network)

    run(scenario, network=True)


def test_one_address_cannot_take_more_than_its_share() -> None:
    async def scenario(rig: Rig) -> None:
        rig.open_gate.clear()
        greedy = [await rig.connect(1, source="127.0.0.2") for _ in range(2)]
        for _, writer in greedy:
            writer.write(REQUEST)
        await rig.all_busy(2)
        late = await rig.connect(1, source="127.0.0.2")
        assert await late[0].read() == REFUSAL
        rig.open_gate.set()
        # Others are not concerned, nor are programs on this machine.
        modest = await rig.connect(1, source="127.0.0.3")
        local = [await rig.connect(0) for _ in range(4)]
        for connection in (modest, *local):
            assert await ask(connection) == b"200"
        await hang_up(late, modest, *local, *greedy)

    run(scenario, network=True, per_address_max=2)


def test_of_one_address_the_longest_idle_connection_gives_way() -> None:
    async def scenario(rig: Rig) -> None:
        other = await rig.connect(1, source="127.0.0.3")
        first = await rig.connect(1, source="127.0.0.2")
        assert await ask(other) == await ask(first) == b"200"
        rig.clock.advance(1)
        second = await rig.connect(1, source="127.0.0.2")
        assert await ask(second) == b"200"
        third = await rig.connect(1, source="127.0.0.2")
        assert await ask(third) == b"200"
        assert await first[0].read() == b""
        assert await ask(second) == await ask(other) == b"200"
        await hang_up(first, second, third, other)

    run(scenario, network=True, per_address_max=2)


def test_a_closed_connection_gives_its_place_back() -> None:
    async def scenario(rig: Rig) -> None:
        for _ in range(5):
            rig.open_gate.clear()
            connection = await rig.connect(1)
            connection[1].write(REQUEST)
            await rig.all_busy(1)
            rig.open_gate.set()
            await connection[0].readuntil(b"\r\n\r\n")
            await hang_up(connection)
            await rig.counted(0)

    run(scenario, network=True, per_address_max=1)


def test_an_ipv4_client_of_an_ipv6_socket_has_its_usual_address() -> None:
    assert plain_address("::ffff:192.0.2.1") == "192.0.2.1"
    assert plain_address("192.0.2.1") == "192.0.2.1"
    assert plain_address("2001:db8::1") == "2001:db8::1"
    assert plain_address("::ffff:c000:201") == "::ffff:c000:201"
