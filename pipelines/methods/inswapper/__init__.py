"""inswapper_128 of insightface: swap a face to the identity of an ArcFace embedding. There is no paper.

| part | code |
|---|---|
| the network, and the matrix that maps ArcFace embeddings to its input | ``network.InSwapper`` |
| crop of 128 px | ``network.swapper_transform`` |
| search of a new identity, strength as slerp, paste | ``method.InSwapperMethod`` |
"""
