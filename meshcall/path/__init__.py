"""Ways between two devices: which there are, which one carries the packets, and how a better one is opened.

The parts know neither sockets nor keys: they take and give values, and whoever holds the sockets and
the sealed session does the sending.
"""
