"""How fast is it, and against what? `ssah bench` (`make bench`).

Ours and its peers are timed in turn in one process, so that a machine that slows down slows both;
what is told are ratios. The machine is described, and nothing is asserted about time anywhere.

    timing               clocks, and calls that are timed in turn
    peers                what others do in the same place, written anew in a few lines
    attribution, training, decoding       the rows of the table
    growth               time against tokens, blocks and width
    plan                 bytes and hours of large models, computed
    table                Markdown, and the file that docs/speed.md is made from (no torch)
    run                  all of it, in order
"""
