import asyncio
from ocean_core.protocol.nanogridata.encode import encode, gas_payload
from ocean_core.protocol.nanogridata.frame import GAS
from support.frame_kit import NOW_S, SECRET, FrameKit, pressure
from collections import Counter
def test_quota():
    async def case():
        kit = await FrameKit().opened()
        gases = [encode(GAS, 1, gas_payload("G", f"g{n}", NOW_S, 1), level=0, timestamp=NOW_S) for n in range(1000)]
        res = await kit.take(*gases)
        print(Counter(r.outcome for r in res)); 
        res2 = await kit.stream(b"".join(encode(GAS, 1, gas_payload("H", f"g{n}", NOW_S, 1), level=0, timestamp=NOW_S) for n in range(1000)))
        print(Counter(r.outcome for r in res2)); print(len(kit.quota))
        await kit.service.close()
        assert len(kit.quota) == 6
    asyncio.run(case())
