"""Reports: the warehouse, plots and the gallery."""
