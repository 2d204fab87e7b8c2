"""Cryptography: `suite` says what the protocol needs, `sodium` does it with libsodium."""
