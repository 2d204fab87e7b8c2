"""A mapper and a fake gateway in virtual time: carries what one wants from the other, and nothing else."""

from __future__ import annotations

from random import Random

from meshcall.core import Endpoint, endpoint, port_of
from meshcall.portmap.grant import Gateway
from meshcall.portmap.mapper import Event, Mapper
from tests.portmap.fake_gateway import FakeGateway

GATEWAY = Gateway(b"\xc0\xa8\x01\x01", b"\xc0\xa8\x01\x64")
PORT = 40_123
SECRET = b"sixteen bytes or so"


class World:
    """`run` lets virtual seconds pass; datagrams take a hundredth of one."""

    def __init__(self, gateway: FakeGateway | None = None) -> None:
        self.fake = FakeGateway() if gateway is None else gateway
        self.now = 1000.0
        self.fake.started = self.now - 500
        self.mapper = Mapper(PORT, secret=SECRET, rng=Random(7))
        self.events: list[Event] = []
        self.sent: list[tuple[float, Endpoint, bytes]] = []
        self.asked: list[tuple[float, bytes]] = []
        self.is_deaf = False
        """Nothing of the gateway's arrives."""

    def join(self, gateway: Gateway | None = GATEWAY) -> None:
        self.mapper.set_gateway(self.now, gateway)
        self.carry()

    def carry(self) -> None:
        """Until both are quiet."""
        mapper = self.mapper
        for _ in range(100):
            self.events += mapper.events
            mapper.events.clear()
            outbox, requests = mapper.outbox[:], mapper.requests[:]
            mapper.outbox.clear()
            mapper.requests.clear()
            if not outbox and not requests:
                return
            self.now += 0.01
            for where, data in outbox:
                self.sent.append((self.now, where, data))
                for source, answer in self.answers(where, data):
                    mapper.receive(self.now, source, answer)
            for request in requests:
                self.asked.append((self.now, request.data))
                if self.is_deaf:
                    mapper.failed(self.now, request.number, "http no connection")
                else:
                    mapper.answered(self.now, request.number, self.fake.http(request.data))
        raise AssertionError("the two never fall silent")

    def answers(self, where: Endpoint, data: bytes) -> list[tuple[Endpoint, bytes]]:
        if self.is_deaf:
            return []
        if port_of(where) == 5351:
            return [(where, answer) for answer in self.fake.datagram(self.now, data)]
        return [
            (endpoint("192.168.1.1", 1900), answer)
            for answer in self.fake.search(data, "http://192.168.1.1:5000/desc.xml")
        ]

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        for _ in range(10_000):
            wake = self.mapper.next_wake()
            if wake is None or wake > end:
                break
            self.now = max(self.now, wake)
            self.mapper.wake(self.now)
            self.carry()
        else:
            raise AssertionError("the timer spins")
        self.now = max(self.now, end)

    def outsides(self) -> list[tuple[str, bytes | None]]:
        return [(type(event).__name__, event.outside) for event in self.events]
