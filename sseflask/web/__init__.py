"""What routes share: refusals, parameters, limits, CORS, and the headers of proxies."""
