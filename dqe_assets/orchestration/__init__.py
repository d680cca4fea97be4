"""The whole: settings, graph, jobs, sensors, runs."""
