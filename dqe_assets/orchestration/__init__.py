"""Everything put together: settings, graph, jobs, sensors, runs."""
