"""What assets are built with: models, the store, the collection, the warehouse."""
