"""A way to the DHT for devices in networks that bar UDP: over TCP, through gateways (docs/tcp.md)."""
