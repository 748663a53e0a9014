"""`python -m camserver`."""

from camserver.cli import main

if __name__ == "__main__":
    main()
