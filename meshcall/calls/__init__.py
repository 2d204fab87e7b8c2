"""Calls between people: who rings, who answered, and why it ended."""
