"""The catalogue: which models a deployment offers, their sizes, qualities and prices, and the routes that draw them.

The first process reads it at start and at each reload, from MODELS_FILE or from the settings of one provider. It never
changes within a worker.

`model` has its types, `grammar` and `file` read it, `opened` opens its routes, `routing` draws over them.
"""
