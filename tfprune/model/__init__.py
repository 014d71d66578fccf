"""A Keras model, read: its layers and weights, its graph of calls, the data that it takes, and what it costs."""
