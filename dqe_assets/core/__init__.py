"""What every stage is made of."""
