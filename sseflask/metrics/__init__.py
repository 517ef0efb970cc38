"""The figures as others read them: Prometheus, and the page's chart."""
