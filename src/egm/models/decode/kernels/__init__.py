"""What a decoding step computes, in few kernels: the operations, in plain torch, and in Triton."""
