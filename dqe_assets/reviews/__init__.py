"""Decisions of people about samples: kept in a log that no run can lose, and made into a table for each shard."""
