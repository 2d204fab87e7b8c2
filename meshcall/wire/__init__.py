"""Every byte that travels: pure functions, bytes in and small values out, one error (`BadPacket`)."""
