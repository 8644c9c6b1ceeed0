"""From a program to its scalar program, in symbols: lowering, the rules of expectation, closed forms."""
