"""Callbacks: each does one job and survives a resume."""
