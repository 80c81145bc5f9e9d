"""`python -m melmill` is `melmill`."""

from melmill.flows.cli import main

if __name__ == "__main__":
    main()
