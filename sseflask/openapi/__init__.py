"""The HTTP contract as an OpenAPI document, made from the routes' own definitions.

Names, types, bounds and defaults of parameters come from the models that read them, limits from
the constants that refuse. Only the prose, and what a model can't express, is written here. Tests
compare the document with Flask's URL map and, by Schemathesis, with the running service.
"""
