"""Search strategies: what each proposal builds on. One file each; `testing` holds the suite that all of them pass."""
