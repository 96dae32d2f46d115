"""Weights files: their model cards, downloads with consent, and the built-in files."""
