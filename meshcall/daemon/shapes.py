"""What the node says, in JSON: the shapes of docs/control-api.md.  Values in, dictionaries out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from meshcall.address import encode
from meshcall.core import show_endpoint
from meshcall.path.paths import is_relayed, show_path
from meshcall.record.resolver import callable_devices
from meshcall.record.seal import is_fresh

if TYPE_CHECKING:
    from meshcall.address import Link
    from meshcall.dht.events import Report
    from meshcall.node import NodeStatus
    from meshcall.peers.events import PeerStatus
    from meshcall.peers.station import Station
    from meshcall.record.events import RecordFound, RecordUpdated, ResolveFinished
    from meshcall.relay.events import RelayStatus
    from meshcall.wire.record import DeviceEntry, Record, RelayLease

Json = dict[str, Any]

NAT_KINDS = {
    "none": "none",
    "consistent": "endpoint-independent mapping",
    "per destination": "address-dependent mapping",
    "unknown": "unknown",
}
"""Words of the DHT to those of RFC 4787."""


def status(snapshot: NodeStatus) -> Json:
    """The parts of a status that the node itself knows."""
    dht = snapshot.dht
    mappings = [family.mapping for family in dht.families]
    worst = next((kind for kind in ("per destination", "consistent", "none") if kind in mappings), "unknown")
    return {
        "network": {
            "joined": snapshot.joined,
            "udp_barred": snapshot.udp_barred,
            "gateways": snapshot.gateways,
            "reachable": dht.reachable,
            "read_only": dht.read_only,
            "nat": NAT_KINDS[worst],
            "families": [
                {
                    "family": family.family,
                    "node_id": family.node_id.hex(),
                    "outside": show_endpoint(family.outside) if family.outside else None,
                    "nat": NAT_KINDS.get(family.mapping, family.mapping),
                    "contacts": family.contacts,
                    "heard": family.heard,
                    "waiting": family.waiting,
                    "size_estimate": round(family.size_estimate) if family.size_estimate else None,
                }
                for family in dht.families
            ],
            "operations": dht.operations,
            "requests": dht.requests,
        },
        "record": _publication(snapshot),
        "store": {"items": dht.items, "item_bytes": dht.item_bytes, "peers": dht.peers},
        "lookups": snapshot.lookups,
        "counters": {"node": snapshot.counters, "dht": dht.counters},
    }


def _publication(snapshot: NodeStatus) -> Json | None:
    publisher = snapshot.publisher
    if publisher is None:
        return None
    return {
        "up_to_date": publisher.up_to_date,
        "revoked": publisher.revoked,
        "periods": [
            {
                "period": one.period,
                "starts": one.starts,
                "ends": one.ends,
                "state": one.state,
                "seq": one.seq,
                "stored": one.stored,
                "devices": one.devices,
                "confirmed": one.confirmed,
                "published_seconds_ago": _seconds(one.published_seconds),
                "next_in_seconds": _seconds(one.next_seconds),
                "failure": one.failure,
            }
            for one in publisher.periods
        ],
    }


def found(event: RecordFound | RecordUpdated, unix_time: float) -> Json:
    """A record as a look-up brought it."""
    return {
        "seconds": _seconds(event.seconds),
        "period": event.period,
        "seq": event.seq,
        **record(event.record, unix_time),
    }


def record(content: Record, unix_time: float) -> Json:
    """The devices of a record."""
    reachable = callable_devices(content, unix_time)
    return {
        "devices": [_device(device, unix_time, device in reachable) for device in content.devices],
        "revoked": [revocation.serial for revocation in content.revoked],
    }


def _device(device: DeviceEntry, unix_time: float, usable: bool) -> Json:
    return {
        "serial": device.serial,
        "static_key": device.static.hex(),
        "certificate_expires": device.expiry,
        "announced_seconds_ago": round(unix_time - device.time),
        "lifetime_seconds": device.lifetime,
        "fresh": is_fresh(device, unix_time),
        "callable": usable,
        "capabilities": device.capabilities,
        "direct": [show_endpoint(where) for where in (*device.direct_v4, *device.direct_v6)],
        "relays": [_lease(lease) for lease in device.leases],
    }


def finished(link: Link, event: ResolveFinished, first_seconds: float | None, unix_time: float) -> Json:
    """The result of a look-up."""
    return {
        "address": encode(link.public),
        "name": link.name,
        "outcome": event.outcome,
        "found": event.outcome == "found",
        "reason": event.reason,
        "first_seconds": _seconds(first_seconds),
        "seconds": _seconds(event.seconds),
        "record": found(event.best, unix_time) if event.best else None,
        "lookups": [
            {
                "period": one.period,
                "target": one.target.hex(),
                "answered": one.answered,
                "seq": one.seq,
                "invalid": one.invalid,
                "report": _report(one.report) if one.report else None,
            }
            for one in event.lookups
        ],
    }


def _report(report: Report) -> Json:
    return {
        "seconds": _seconds(report.seconds),
        "requests": report.requests,
        "answers": report.answers,
        "hops": report.hops,
        "steps": [
            {
                "sent_seconds": _seconds(step.sent),
                "round_trip_seconds": _seconds(step.took),
                "endpoint": show_endpoint(step.endpoint),
                "node_id": step.node_id.hex() if step.node_id else None,
                "shared_bits": step.shared_bits,
                "outcome": step.outcome,
            }
            for step in report.steps
        ],
    }


def link(status: PeerStatus) -> Json:
    """An open link and its paths, the best first."""
    prober = status.paths
    return {
        "link": status.link,
        "address": encode(status.identity),
        "device": status.serial,
        "incoming": status.incoming,
        "trusted": status.trusted,
        "seconds": _seconds(status.seconds),
        "path": show_path(status.path),
        "reason": None if prober is None else prober.reason,
        "tactic": None if prober is None else prober.tactic,
        "keep_alive_seconds": None if prober is None else _seconds(prober.keep_alive),
        "paths": []
        if prober is None
        else [
            {
                "path": show_path(one.path),
                "kind": "relay" if is_relayed(one.path) else "direct",
                "state": one.state.name.lower(),
                "round_trip_seconds": _seconds(one.rtt),
                "loss": round(one.loss, 3),
                "heard_seconds_ago": _seconds(one.heard),
                "is_best": one.is_best,
                "is_second": one.is_second,
            }
            for one in prober.paths
        ],
        "counters": {} if prober is None else prober.counters,
    }


def relay(station: Station | None, now: float, forwarding: Json) -> Json:
    """Leases at relays of others, how they are reached, and the relay of one's own."""
    core = None if station is None else station.relay
    return {
        "leases": [] if station is None else [_lease(one) for one in station.leases],
        "over_tcp": station is not None and station.is_udp_barred,
        "relay": None if core is None else {**_relay(core.status(now)), "forwarding": forwarding},
    }


def _relay(status: RelayStatus) -> Json:
    return {
        "mode": status.mode,
        "leases": status.leases,
        "member_leases": status.member_leases,
        "flows": status.flows,
        "established": status.established,
        "load": round(status.load, 3),
        "kbit_per_second_max": status.bytes_per_second_max // 125,
        "is_squeezing": status.is_squeezing,
        "counters": status.counters,
    }


def _lease(lease: RelayLease) -> Json:
    return {
        "relay_key": lease.relay.hex(),
        "lease": lease.lease_id.hex(),
        "endpoints": [show_endpoint(where) for where in (lease.v4, lease.v6) if where],
        "udp": lease.udp,
        "tcp_port": lease.tcp_port,
    }


def totals(result: Mapping[str, Any]) -> tuple[int, int, int]:
    """Requests, answers and hops of a look-up's result over all its periods."""
    reports = [one["report"] for one in result.get("lookups", []) if one.get("report")]
    return (
        sum(one["requests"] for one in reports),
        sum(one["answers"] for one in reports),
        max((one["hops"] for one in reports), default=0),
    )


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
