"""Port mappings: asks the gateway to forward a UDP port to this device (PCP, NAT-PMP, UPnP IGD), and nothing else."""
