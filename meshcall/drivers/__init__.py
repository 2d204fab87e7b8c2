"""Drivers: trio and the machine around the cores.  Each is thin and decides nothing about the protocol."""
