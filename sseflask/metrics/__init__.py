"""The figures for Prometheus, and for the page's chart."""
