"""Launch discovery campaigns, browse the archive, export discovered losses."""
