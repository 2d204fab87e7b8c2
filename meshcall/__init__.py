"""meshcall: encrypted voice calls from person to person, found by public key in a Kademlia DHT.

A newcomer follows the way of a call: `address`, `record`, `dht`; `node` puts them together as one
core without input or output, `daemon` (real sockets) and `sim` (virtual time) drive that core.
"""

__version__ = "0.1.0"
