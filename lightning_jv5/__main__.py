"""``python -m lightning_jv5``."""

from lightning_jv5.cli import main

if __name__ == "__main__":
    main()
