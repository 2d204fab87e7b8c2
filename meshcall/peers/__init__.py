"""Everything that a device does with other devices: links, the paths under them, who is trusted with what."""
