"""Ingest: rows of sources become raw samples."""
