"""Proposers: where new objectives come from. One file each, found by entry point; they import protocols only."""
