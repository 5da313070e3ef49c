"""Which pass, rule or kernel makes a result wrong: what `effcc bisect script.py` does.

script      the script is run in a process of its own; every program that effcc compiles in it is watched
watch       each call of a program against the captured graph in float64, and against itself called again
call        a program, its inputs, what it must give, and the ways to run it
blame       the first step whose result is wrong, the pass of the step, the rule and its number, the kernel
native      of compiled code: threads, memory, each kernel alone, the compiler's optimizer
shrink      a smaller program that goes wrong alike
report      the folder with the IR, the inputs and a script that shows the wrong result
"""
