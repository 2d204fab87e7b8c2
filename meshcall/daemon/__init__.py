"""The node in the real world: the one place where clock, chance, cryptography, sockets and files are chosen.

`live` puts the core on sockets, `start_points` knows where to begin, `shapes` says in JSON what the
core says in values, `service` is the daemon around it all.
"""
