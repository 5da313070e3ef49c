"""Storing a model's weights compactly: `quantize` and `sparsify`, one after the other in either order.

    effcc.quantize(model, "int8")                         # weights as bytes, a scale for each output channel
    effcc.sparsify(model, "block(4,1)", density=0.2)      # of every 4 outputs, the fifth of inputs that matters most
    model = torch.compile(model, backend="effcc")

Both work in place, as torchao's `quantize_` does, and return the model. A module keeps its class (an encoded
`nn.Linear` is an `nn.Linear`), its bias and its hooks; in place of the parameter `weight` it holds component arrays,
`weight_values`, `weight_scale`, `weight_columns`, and `weight` decodes them. So state_dict, deepcopy, pickling, eager
and torch.export work as before, and what effcc compiles reads the components. (A process that only loads such a `.pt2`
file or pickle with torch imports `effcc.frontend.decode` or `effcc.compression.modules` first.)
"""
