"""Search in use: a page on this machine that shows what fewer dims and fewer bits cost."""
