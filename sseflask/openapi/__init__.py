"""The HTTP contract as an OpenAPI document, made of what the routes themselves know."""
