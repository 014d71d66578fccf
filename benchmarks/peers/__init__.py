"""The other side of each benchmark, run as processes of their own: tfmot needs Keras 2, tfprune needs Keras 3."""
