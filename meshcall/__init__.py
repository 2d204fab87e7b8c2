"""meshcall: encrypted voice calls from person to person, found by public key in a Kademlia DHT.

A newcomer follows the way of a call: `address`, `record`, `dht`, then `handshake`, `path` and `relay`, which
`peers` puts together; `node` is all of it as one core without input or output, and `daemon` (real sockets)
and `sim` (virtual time) drive that core.
"""

__version__ = "0.1.0"
