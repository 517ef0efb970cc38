"""What routes share: refusals, parameters, limits, and what browsers and proxies say."""
