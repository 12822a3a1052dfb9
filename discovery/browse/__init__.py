"""What people look at, computed from an archive as frozen values. How to show them is up to the command line and the web."""
