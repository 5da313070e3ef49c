"""PyTorch's own tests of its compiler, with effcc in Inductor's place."""
