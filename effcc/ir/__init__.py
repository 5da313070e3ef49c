"""The three languages of effcc: Graph (SSA over tensors), Kernel (cascades of einsums), Loops (tiles and loops)."""
