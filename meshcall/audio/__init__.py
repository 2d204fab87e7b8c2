"""Voice without devices and networks: sender, receiver, repair, policy.  Sound is numpy int16, mono, 48 kHz."""
