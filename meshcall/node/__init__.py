"""The whole node as one core: the DHT, publication, look-ups, links and calls; see `core`."""

from meshcall.node.core import Node
from meshcall.node.events import LookupEvent, NodeEvent, NodeStatus, UdpBarred
from meshcall.node.lookups import LOOKUPS_MAX

__all__ = ["LOOKUPS_MAX", "LookupEvent", "Node", "NodeEvent", "NodeStatus", "UdpBarred"]
