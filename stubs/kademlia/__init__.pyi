"""Types of the parts of kademlia 2.2.3 that meshcall builds on; the rest of that package is not used."""

__version__: str
