"""PyTorch's operator database (`op_db`, from which its own tests run), compiled by effcc and compared with eager."""
