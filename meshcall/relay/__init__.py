"""Relays: what a volunteer's node does for others, and how a device finds relays and keeps its place at them."""
