"""The catalogue: which models a deployment offers, their sizes, qualities and prices, and the routes that draw them.

It is read once at start, from MODELS_FILE or from the settings of one provider, and never changes while the program
runs. `model` has its types, `grammar` and `file` read it, `opened` opens its routes, `routing` draws over them.
"""
