"""Weights as data: cards, downloads by consent, and the small built-in files."""
