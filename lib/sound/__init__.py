"""Sounds rather than images: how large a change is heard to be, images back to sounds, attacks on sounds."""
