"""Sound devices: hardware, files and silence behind one interface (docs/audio.md); and what is done to their sound."""
