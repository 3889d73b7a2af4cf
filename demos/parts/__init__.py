"""Pieces that every tab shares: the race, its snapshot, the two custom views, knobs, tables and links."""
