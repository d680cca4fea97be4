"""With what it is built: models, the store, the collection, the warehouse."""
