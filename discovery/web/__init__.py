"""`discovery dashboard`: an archive in the web browser. Reads only; needs the extra `[web]`."""
