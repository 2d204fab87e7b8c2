"""The secure session between two devices: Noise IK with ML-KEM-768, sealed packets, messages; it knows no addresses."""
