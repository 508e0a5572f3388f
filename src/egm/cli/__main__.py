"""`python -m egm.cli`, for launchers that start a module on each process."""

from egm.cli import main

if __name__ == "__main__":
    main()
