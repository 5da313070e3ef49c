"""The op table's rows, one file per family; `effcc.ir.ops` adds them up."""
