"""The store: Parquet files and manifests, each with a stamp of how it was made."""
