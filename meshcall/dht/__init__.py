"""The DHT: a BitTorrent Mainline node (BEP 5, 32, 42, 43, 44) as a core without input or output.

`node.Dht` is the core; `query` one iterative look-up; `table` the buckets; `server` the answers.
"""
