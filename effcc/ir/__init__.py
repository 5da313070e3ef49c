"""The languages of effcc: Graph (SSA over tensors), Kernel (cascades of einsums), Schedule, Loops, Vectors."""
