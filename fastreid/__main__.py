"""Run the console command: ``python -m fastreid`` is ``fastreid``."""

from fastreid.cli import main

if __name__ == "__main__":
    main()
