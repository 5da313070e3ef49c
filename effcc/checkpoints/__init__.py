"""Models whose weights others stored: taken over without change of value, the same integers in effcc's encodings.

    gguf_file       a GGUF file: metadata, and tensors as blocks of bytes
    gguf_config     the transformers configuration that the metadata describes
    gguf_blocks     each type of blocks as codes, scales and minimums
    gguf_model      `from_gguf`: the model
    adopt           modules that torchao, bitsandbytes or torch.ao quantized (`torchao_weights`,
                    `bitsandbytes_weights`, `pytorch_weights`)
    folder          `from_checkpoint`: GPTQ, AWQ, compressed-tensors, bitsandbytes in safetensors (`packed_layers`)
    weights         codes, scales and minimums as the components of an encoding

What is not known is refused by name.
"""
