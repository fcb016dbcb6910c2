"""Run the `ocean` command with `python -m ocean_core`."""

from ocean_core.cli.main import main

if __name__ == "__main__":
    main()
