"""`python -m ohmgrad`: the command line."""

from ohmgrad.cli import main

if __name__ == "__main__":
    main()
