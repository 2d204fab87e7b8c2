"""The demonstration: a private network on this machine, two people in it, and one finding the other.

`swarm` is the network, `people` the two and their daemons, `story` what happens in which order,
`view` how it is shown.  Everything is real but the distance: sockets, processes, keys, the local API.
"""
