"""The language: what a program is made of, how it is built, printed and parsed. No meaning lives here."""
