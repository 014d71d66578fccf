"""A Keras model, read: its layers and weights, its graph of calls, the data that it takes, and what it costs.

In comes any built Keras 3 model, and data in whatever form `fit` takes. The room finds its layers and weights by their
paths, says what each layer computes and costs, and makes copies that carry everything. Out come plain values for all
other rooms, which ask here alone what Keras is like.
"""
