"""`python -m discovery`: the same as the `discovery` command."""

from discovery.cli import main

if __name__ == "__main__":
    main()
