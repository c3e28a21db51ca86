"""Uploaded images over HTTP: kept for a while, to go into generations."""
